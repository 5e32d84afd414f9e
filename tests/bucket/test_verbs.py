"""Verbs that read a trained model take it from a bucket."""

import importlib
import io
import json
import re

import numpy as np
import pytest
from absl import flags as absl_flags
from PIL import Image

from jaxgen import config, files, train
from jaxgen.cli import VERBS
from jaxgen.monitor import pictures

MODELS = {"workdir", "workdirs", "classifier", "worse", "to"}  # flags that name trained ones
INPUTS = {"image", "mask", "masks", "truth", "low_res", "mel", "project", "checkpoint", "data"}
RESULTS = {"out", "page", "maps", "json", "judge", "save_ref", "picture"}
HERE = {"study": {"out"}, "modes": {"data"}}  # a record on its machine; names of data


@pytest.mark.parametrize("verb", VERBS)
def test_paths_may_lie_in_a_bucket(verb):
  module = importlib.import_module(f"jaxgen.{VERBS[verb][0]}")
  values = absl_flags.FlagValues()
  module.define(values)
  paths = (MODELS | INPUTS | RESULTS) & set(values) - HERE.get(verb, set())
  assert paths <= set(vars(module).get("IN_BUCKETS", ()))


def trained(family, workdir):
  """A model of digits, hardly trained, in a folder."""
  c = config.load(f"configs/digits_{family}.py:debug")
  c.steps, c.checkpoint.every, c.log.pictures = 2, 2, 0
  train.train(c, str(workdir), quiet=True)
  return workdir


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return trained("vae", tmp_path_factory.mktemp("model") / "W")


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
  return trained("diffusion", tmp_path_factory.mktemp("model") / "D")


def upload(folder, address):
  for name in files.shown_below(folder):
    files.write_bytes(files.join(address, name), (folder / name).read_bytes())


def test_scores_are_those_of_the_same_model_in_a_folder(model, bucket, verb, tmp_path):
  upload(model, f"{bucket.folder}/W")
  scores = []
  for i, place in enumerate((model, f"{bucket.folder}/W")):
    out = tmp_path / f"{i}.csv"
    status, _, lines = verb(
      "anomaly", f"--workdir={place}", "--label=3", "--num=10", f"--out={out}"
    )
    assert status == 0, lines
    assert json.loads(out.with_suffix(".json").read_text())["made"]["step"] == 2
    scores.append(np.loadtxt(out, delimiter=",", skiprows=1, usecols=1))
  np.testing.assert_array_equal(*scores)


def test_mistakes_name_what_lies_in_the_bucket_not_its_copy(bucket, verb, tmp_path):
  np.savez(tmp_path / "s.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
  address = f"{bucket.folder}/s.npz"
  files.write_bytes(address, (tmp_path / "s.npz").read_bytes())
  words = [f"--samples={address}", f"--ref={address}", "--protocol=adm"]
  status, _, lines = verb("eval", *words, f"--out={tmp_path / 'card.json'}")
  assert status == 2 and f"arr_0 of {address} is" in lines[-1] and "copies" not in lines[-1]


WORDS = {  # of a verb: its model, and how it writes into the folder {}
  "anomaly": ("model", "--label=3 --num=10 --out={}/a.csv --maps={}/maps"),
  "encode": ("model", "--data=digits --out={}/latents"),
  "export": ("model", "--source=stablehlo --out={}/p.stablehlo"),
  "edit": ("diffusion", "--image={}/a.png --how=sdedit --steps=2 --labels=3 --out={}/edited"),
  "sample": ("diffusion", "--num=4 --steps=2 --out={}/four/"),
}


SLOW = {"edit": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in WORDS])
def test_results_in_a_bucket_are_those_in_a_folder(name, bucket, verb, tmp_path, request):
  """All files, but for the addresses in them."""
  kind, words = WORDS[name]
  workdir, wrote = request.getfixturevalue(kind), []
  image = pictures.png(np.arange(64, dtype=np.uint8).reshape(8, 8))
  for place in (str(tmp_path), bucket.folder):
    if "--image" in words:
      files.write_bytes(f"{place}/a.png", image)
    arguments = [word.format(*[place] * 2) for word in words.split()]
    status, _, lines = verb(name, f"--workdir={workdir}", *arguments)
    assert status == 0, lines
    wrote.append({file: parts(place, file) for file in files.shown_below(place)})
  assert wrote[0] and wrote[0] == wrote[1]


def parts(place, file):
  """What a file holds, as values that can be compared; where it is does not count."""
  content = files.path(files.join(place, file)).read_bytes()
  if file.endswith(".png"):
    info = {} if file == "a.png" else pictures.read_info(files.join(place, file))
    return pixels(content), json.dumps(info).replace(place, "")
  if file.endswith(".npz"):
    with np.load(io.BytesIO(content)) as arrays:
      return {k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items() if k != "info"}
  text = content.decode(errors="surrogateescape").replace(place, "")
  # Pictures in pages say, too, where they were made; and a clock never says the same.
  return re.sub(r'data:image/png;base64,[^"]*|"seconds[^,]*|<dd>[0-9.]+ s\b', "", text)


def pixels(content):
  with Image.open(io.BytesIO(content)) as image:
    return np.asarray(image).tobytes()
