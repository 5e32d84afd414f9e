"""Commands of the README: all parse, and those that are not long run as written."""

import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
import sys

import pytest
import rooms
from rooms import ROOT

from jaxgen import cli
from jaxgen.evaluation import cards
from jaxgen.evaluation.protocols import PROTOCOLS

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.S | re.M)
COMMANDS = [
  shlex.join(words)
  for kind, block in BLOCKS
  if kind == "bash"
  for line in block.replace("\\\n", " ").splitlines()
  for part in line.split("&&")
  if (words := shlex.split(part, comments=True))
]
SNIPPETS = [block for kind, block in BLOCKS if kind == "python"]
# Beginning of a command -> why no test runs it. These are run by hand.
LONG = {
  "python3 -m venv": "from nothing: .ci/run does it",
  ".venv/bin/pip install": "the same",
  ".venv/bin/jaxgen demo": "minutes: three trainings",
  ".venv/bin/python -m pytest": "all tests",
  "python -m pytest": "all tests, or the quick ones",
  "ruff": ".ci/run does it",
  "jaxgen train --config configs/digits_diffusion.py --": "minutes",
  "jaxgen train --config configs/digits_gan.py --": "minutes",
  "jaxgen train --config configs/images_diffusion.py": "a user's images",
  "jaxgen train --config configs/photos.py": "half an hour",
  "jaxgen train --config configs/ldm_kl.py": "minutes",
  "jaxgen train --config configs/digits_latent.py": "minutes",
  "jaxgen train --config configs/vqvae2": "minutes",
  "jaxgen encode": "a codec's training",
  "jaxgen train --config configs/consistency.py": "minutes",
  "jaxgen train --config configs/mean_flow.py": "minutes",
  "jaxgen train --config configs/ddgan.py": "minutes",
  "jaxgen sample --workdir M": "its training",
  "jaxgen trilemma": "minutes: the judge's training",
  "jaxgen train --config configs/diffwave.py": "ten minutes or more",
  "jaxgen train --config configs/wavegan.py": "minutes",
  "jaxgen train --config configs/hifigan.py": "half an hour",
  "jaxgen sample --workdir DW": "its training",
  "jaxgen sample --workdir V": "minutes: its training",
  "jaxgen eval --workdir V": "the same",
  "jaxgen sample --workdir P": "minutes: two trainings",
  "jaxgen eval --workdir KL": "minutes: a codec's training, and the judge's",
  "jaxgen sample --workdir A --classifier C": "minutes: its classifier's training",
  "jaxgen sample --workdir S": "minutes: a StyleGAN2's training",
  "jaxgen sample --workdir C": "half an hour: the cascade's training",
  "jaxgen sample --workdir BASE,UP": "two trainings",
  "jaxgen sample --workdir D": "published weights",
  "jaxgen eval --workdir W": "minutes: the judge's training",
  "jaxgen eval --samples": "the judge's training, or Inception's weights",
  "jaxgen eval --workdir D": "published weights",
  "jaxgen eval --workdir C": "the cascade's training",
  "jaxgen likelihood": "a minute: 1,000 steps for every image",
  "jaxgen choose": "minutes: a judge and three trainings",
  "jaxgen compare --configs": "minutes: trainings",
  "jaxgen compare --workdirs": "minutes: the judge's training",
  "jaxgen sweep": "minutes: the judge's training",
  "jaxgen modes": "an hour: 40 trainings",
  "jaxgen edit": "the reader's images, or minutes of measuring",
  "jaxgen train --config configs/pix2pix.py": "minutes",
  "jaxgen train --config configs/palette.py": "minutes",
  "jaxgen train --config configs/cycle_gan.py": "minutes",
  "jaxgen translate": "their training",
  "jaxgen anomaly": "the reader's images, or many trainings",
  "jaxgen augment": "many trainings",
  "jaxgen train --config configs/gan_control.py": "minutes",
  "jaxgen control": "their training",
  "jaxgen study": "a person",
  "jaxgen import": "published weights",
  "jaxgen plan": "minutes: the compiler of TPUs",
  "jaxgen bench": "half a minute each: measurements",
  "launch/local.sh": "two processes: tests/test_launch.py",
}
FAST = [c for c in COMMANDS if not c.startswith(tuple(LONG))]
# In place of what a user trains for minutes.
TINY = (
  "jaxgen train --config configs/digits_adm.py:debug --workdir W --config.steps=1 "
  "--config.model.steps=25 --config.log.pictures=0 --config.model.net.mults='(1,)' "
  "--config.model.net.attend='()' --config.model.net.width=8"
)
STANDS_FOR = {"W": ("A", "W0"), "G0": ("G",)}


def run(line):
  with pytest.raises(SystemExit) as end:
    cli.main(shlex.split(line))
  assert end.value.code == 0, line


def write_cards():
  weights = {"name": "inception", "sha256": "ab"}
  reference = {"kind": "file", "name": "r.npz", "sha256": "cd", "images": 10}
  for i, name in enumerate("ab"):
    samples = {"kind": "model", "name": name, "images": 9, "seed": 0, "step": i, "knobs": {}}
    card = cards.head(PROTOCOLS["adm"], weights, reference, samples)
    card |= {"scores": {"fid@adm": 3.5 + i}, "warnings": [], "spread": {}}
    pathlib.Path(f"{name}.json").write_text(json.dumps(card))


def test_fast_commands_run_as_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(os, "_exit", sys.exit)
  write_cards()
  for line in (TINY, *FAST):
    run(line)
    workdir = line.partition("--workdir ")[2].split(" ")[0]
    for name in STANDS_FOR.get(workdir, ()) if " train " in line else ():
      shutil.copytree(workdir, name)
  for snippet in SNIPPETS:
    names = {}
    exec(snippet, names)
    assert names["x"].shape == (64, 8, 8, 1)


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith(("jaxgen", "launch"))])
def test_flags_of_every_command_parse(line):
  program, *words = shlex.split(line)
  if program == "launch/local.sh":  # whose own flags come first
    words = ["train", *words[4:]]
    assert (ROOT / program).is_file()
  verb = {"eval": "evaluate"}.get(words[0], words[0])
  module = importlib.import_module(f"jaxgen.{cli.VERBS[verb][0]}")
  cli.parse(module, [f"jaxgen {verb}", *words[1:]])


def test_no_reason_outlives_its_command():
  assert [start for start in LONG if not any(c.startswith(start) for c in COMMANDS)] == []
  assert len(FAST) > 8


def test_configs_and_files_that_are_named_exist():
  """In prose and tables: `configs/x.py`, jaxgen/a/b.py, links and pictures."""
  names = set(re.findall(r"(?:jaxgen|tests|launch|configs|\.github)/[\w./-]*[\w/]", README))
  assert [n for n in names if not n.endswith("/x.py") and not (ROOT / n).exists()] == []


def test_the_picture_of_the_rooms_is_up_to_date():
  assert rooms.PICTURE.read_text() == rooms.picture(), "run tests/helpers/rooms.py"
