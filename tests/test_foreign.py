"""Every verb that writes, among files and links of others."""

import os

import jax
import looks
import numpy as np
import pytest
from test_checkpoint_foreign import everything, fill
from test_collect import PLAN, Killed, Memory
from verbs import POINTS, call

from jaxgen import cli, config, train
from jaxgen.data import cache
from jaxgen.errors import UserError
from jaxgen.evaluation import collect as collecting
from jaxgen.evaluation import features
from jaxgen.evaluation.run import forget_all
from jaxgen.monitor import log

NAMES = """
  samples events quarantine evals models judge checkpoints checkpoints/best checkpoints/4
  checkpoints/007 checkpoints/² 0 1 report .hidden x.partial x.partial/samples out out/sub
  evals/00000020-adm-90.partial
""".split()
LINKS = """
  samples/far events/far quarantine/far evals/far far checkpoints/far checkpoints/6 checkpoints/30
  out/far x.partial/samples/far y.partial models/far judge/far
""".split()


def crowd(folder, far):
  """Fills a folder with what others might have there."""
  for name in NAMES:
    fill(folder / name)
  for name in LINKS:
    (folder / name).symlink_to(far)
  for name in ("notes", "data.tmp.npz", "state.npz", "10-1", "SEAL.json"):
    (folder / name).write_bytes(b"mine\0" + name.encode())
    (folder / "samples" / name).write_bytes(b"mine")
    (folder / "checkpoints" / name).write_bytes(b"mine")
  (folder / "dangling").symlink_to("nowhere")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """A trained workdir and a folder for results, both crowded: -> (w, out)."""
  top = tmp_path_factory.mktemp("world")
  fill(top / "far")
  for name in ("w", "out"):
    (top / name).mkdir()
    crowd(top / name, top / "far")
  before = everything(top)
  c = config.load("configs/points_gan.py:debug")
  c.checkpoint.every, c.checkpoint.keep, c.log.pictures = 5, 2, 10
  train.train(c, str(top / "w"), quiet=True)
  assert same(before, everything(top))
  np.savez(top / "own.npz", looks.pictures(90, 1), np.arange(90) % 3)
  np.savez(top / "real.npz", looks.pictures(70, 2), np.arange(70) % 3)
  return top


def same(before, after):
  """Whether all that was there is still there, and as it was."""
  return {k: after.get(k, "gone") for k in before} == before


VERBS = {
  "sample png": "sample --workdir=w --num=4 --out=out/a.png",
  "sample npz": "sample --workdir=w --num=4 --out=out/data.npz",
  "sample folder": "sample --workdir=w --num=4 --out=out/made",
  "evaluate": "evaluate --workdir=w --num=400 --out=out/b.json",
  "evaluate by protocol": "evaluate --samples=own.npz --ref=real.npz "
  "--protocol=adm --out=out/x.json --save_ref=out/ref.npz",
  "evaluate again": "evaluate --samples=own.npz --ref=real.npz --protocol=adm --out=out/y.json",
  "sweep": "sweep --workdir=w --over=truncation=1,2 --num=400 --out=out",
  "trilemma": "trilemma --workdirs=w --num=64 --truncation=1 --out=out",
  "modes": "modes --out=out --data=grid25 --rules=wgan_gp --num=400 --debug",
  "bench": "bench data --data=points:grid25 --seconds=.01 --json=out/c.json",
  "train again": f"train {POINTS} --workdir=w --config.steps=22 --config.checkpoint.every=5",
  "train a stage": "train --config=cascade.py --workdir=out",
}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_among_others_things(world, name, capsys, monkeypatch):
  monkeypatch.setattr(features, "open_extractor", looks.opened)
  monkeypatch.setattr(collecting, "SAVE_SECONDS", 0)
  (world / "cascade.py").write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config():\n"
    "  c = ConfigDict()\n"
    "  c.stages = (dict(config='configs/points_gan.py:debug'),)\n"
    "  return c\n"
  )
  before = everything(world)
  words = []
  for word in VERBS[name].split():
    flag, sep, value = word.partition("=")
    own = (
      flag in ("--workdir", "--workdirs", "--out", "--samples", "--ref", "--save_ref", "--json")
      or value == "cascade.py"
    )
    words.append(f"{flag}={world / value}" if own else word)
  status, _, lines = call(capsys, monkeypatch, *words)
  assert status == 0, lines
  after = everything(world)
  if name == "train again":  # what is ours may go: old steps, and the log grows
    ours = (
      "/w/checkpoints/1",
      "/w/checkpoints/20",
      "/w/metrics.jsonl",
      "/w/.jaxgen.lock",
      "/w/samples/000000",
    )
    before = {k: v for k, v in before.items() if not any(part in k for part in ours)}
  changed = {k for k in before if after.get(k, "gone") != before[k]}
  assert not {k for k in changed if not k.endswith("/w/metrics.jsonl")}
  left = {k for k in after if ".jaxgen-" in k or k.endswith(".tmp")}
  assert not left


# What each deletion and each overwrite can hit


def test_work_on_an_evaluation_goes_where_others_are_not(tmp_path, monkeypatch):
  monkeypatch.setattr(collecting, "SAVE_SECONDS", 0)
  fill(tmp_path / "far")
  for name in ("mine/samples", "mine/reference"):
    fill(tmp_path / name)
    (tmp_path / name / "state.npz").write_bytes(b"mine")
    (tmp_path / name / "pool3.rows").write_bytes(b"mine")
  (tmp_path / "linked").mkdir()
  (tmp_path / "linked" / "samples").symlink_to(tmp_path / "mine" / "samples")
  before = everything(tmp_path)
  for folder in ("mine", "linked"):
    with pytest.warns(RuntimeWarning, match="files of others"):
      collecting.collect(
        Memory(looks.pictures(70)),
        looks.Stub(),
        PLAN,
        key="a",
        folder=tmp_path / folder / "samples",
      )
    forget_all(tmp_path / folder)
  assert everything(tmp_path) == before


def test_work_that_is_ours_goes_and_what_came_to_it_stays(tmp_path, monkeypatch):
  monkeypatch.setattr(collecting, "SAVE_SECONDS", 0)
  folder = tmp_path / "x.partial"

  def tick(done):
    if done > 64:
      raise Killed

  for key in "ab":  # b finds what a left, and throws it away
    with pytest.raises(Killed):
      collecting.collect(
        Memory(looks.pictures(140)),
        looks.Stub(),
        PLAN,
        key=key,
        folder=folder / "samples",
        tick=tick,
      )
  assert (folder / "samples" / "state.npz").exists()
  (folder / "samples" / "mine.txt").write_text("mine")
  forget_all(folder)
  assert os.listdir(folder / "samples") == ["mine.txt"]
  (folder / "samples" / "mine.txt").unlink()
  assert collecting.claimed(folder / "samples")
  forget_all(folder)
  assert not folder.exists()


@pytest.mark.parametrize("name", ["x", "a*", "[x]"])
def test_drafts_of_prepared_data(tmp_path, name):
  fill(tmp_path / "far")
  fill(tmp_path / f".{name}.tmp-mine")
  fill(tmp_path / ".ab.tmp-12345678")
  (tmp_path / f".{name}.tmp-link").symlink_to("far")
  (tmp_path / f".{name}.tmp-file").write_text("mine")
  before = everything(tmp_path)
  killed = tmp_path / f".{name}.tmp-abcdefgh"
  fill(killed / name)
  (killed / cache.MARK).touch()
  cache.once(tmp_path / name, lambda tmp: fill(tmp / name))
  assert not killed.exists() and (tmp_path / name / "mine.txt").exists()
  assert same(before, everything(tmp_path))


def test_a_torn_program_takes_programs_alone_with_it(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = cli.own_folder()
  before_cache = jax.config.jax_compilation_cache_dir
  try:
    jax.config.update("jax_compilation_cache_dir", str(folder))
    fill(folder)
    fill(folder / f"jit_f-{'0' * 64}-cache")
    (folder / "my-cache").write_text("mine")
    before = everything(folder)
    (folder / f"jit_g-{'a' * 64}-cache").write_text("torn")
    assert cli.forget_damaged(f"{cli.DAMAGED} for x")
    assert everything(folder) == before
  finally:
    jax.config.update("jax_compilation_cache_dir", before_cache)


@pytest.mark.parametrize("text", ["mine", "a\nb", '{"step": 1}\nmine', "\0\1"])
def test_a_log_that_is_none_is_not_cut(tmp_path, text):
  path = tmp_path / log.FILE
  path.write_text(text)
  with pytest.raises(UserError, match="metrics.jsonl"):
    log.mend(path)
  with pytest.raises(UserError, match="metrics.jsonl"):
    log.append(tmp_path, 1, {"a": 1.0})
  assert path.read_text() == text
  path.write_text('{"step": 1}\n{"ste')
  log.mend(path)
  assert path.read_text() == '{"step": 1}\n'


@pytest.mark.parametrize(
  "words, name",
  [
    ("sweep --workdir=w", "sweep.json"),
    ("sweep --workdir=w", "sweep.md"),
    ("trilemma --workdirs=w", "trilemma.json"),
    ("trilemma --workdirs=w", "trilemma.png"),
    ("modes", "modes.json"),
    ("modes", "modes.png"),
    ("demo", "report.html"),
    ("demo", "report.json"),
    (f"compare --configs={POINTS.partition('=')[2]}", "real.png"),
    ("anomaly --benchmark=digits", "anomaly.html"),
    ("augment --data=digits --configs=digits_vae", "augment.json"),
    ("edit --workdir=w --measure", "edit.html"),
  ],
)
@pytest.mark.parametrize("text", ["mine", "[1]", '{"a": 1}'])
def test_results_that_are_of_others_are_not_overwritten(
  tmp_path, words, name, text, capsys, monkeypatch
):
  (tmp_path / name).write_text(text)
  monkeypatch.setattr("jaxgen.compare.sweep.data_of", lambda workdir: None)
  status, _, lines = call(capsys, monkeypatch, *words.split(), f"--out={tmp_path}")
  assert status == 2 and name in lines[-1] and len(lines) == 1, lines
  assert (tmp_path / name).read_text() == text
  assert os.listdir(tmp_path) == [name]
