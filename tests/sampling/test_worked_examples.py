"""The examples of jaxgen/sampling/README.md run as they are written."""

import contextlib
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import untrained
from rooms import ROOT

import jaxgen
from jaxgen import cli
from jaxgen.convert import export

TEXT = (ROOT / "jaxgen" / "sampling" / "README.md").read_text()
EXAMPLES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.S | re.M)
BLIND = "import sys; sys.modules['jaxgen'] = None; exec(open('serve.py').read())\n"


@pytest.fixture
def workdirs(monkeypatch):
  """Stand for W and G, whose weights nobody trained."""
  models = {
    "W": untrained.digits("configs/digits_diffusion.py:debug", mults=(1,), attend=(), width=8),
    "G": untrained.digits("configs/digits_gan.py:debug"),
  }
  load = lambda workdir, **options: models[workdir]
  monkeypatch.setattr(jaxgen, "load", load, raising=False)
  monkeypatch.setattr(export, "load", load)
  return models


def test_there_are_three():
  assert [kind for kind, _ in EXAMPLES] == ["python", "python", "bash", "python"]


def test_guidance_and_a_gradient_through_a_sampler(workdirs):
  names = {}
  exec(EXAMPLES[0][1], names)
  x, m = names["x"], names["m"]
  assert x.dtype == "uint8" and x.shape == (2, 8, 8, 1)
  means = lambda weight: np.mean(names["brighter"](m.params, weight), (1, 2, 3))
  assert np.abs(means(200.0) - 0.2).max() < np.abs(means(0.0) - 0.2).max() / 2
  assert names["brighter"]._cache_size() == 1
  assert names["distances"][-1] < names["distances"][0]


def test_the_two_nets_of_a_gan(workdirs):
  names = {}
  exec(EXAMPLES[1][1], names)
  assert names["x"].dtype == "uint8" and names["x"].shape == (4, 8, 8, 1)
  assert (names["after"] > names["before"]).all()


def test_a_file_that_is_served_without_jaxgen(workdirs, tmp_path, monkeypatch):
  pytest.importorskip("flatbuffers")
  monkeypatch.chdir(tmp_path)
  (command,) = EXAMPLES[2][1].splitlines()
  with contextlib.suppress(SystemExit):
    cli.main(shlex.split(command))
  (tmp_path / "serve.py").write_text(
    EXAMPLES[3][1] + "\nassert not [k for k in sys.modules if k.startswith('jaxgen.')]"
    "\nnp.savez('made.npz', x=x, y=sample(5, [-1], steps=3))\n"
  )
  subprocess.run([sys.executable, "-c", BLIND], check=True, timeout=300, env=os.environ)
  served, m = np.load("made.npz"), workdirs["W"]
  np.testing.assert_array_equal(served["x"], m.sample(0, 3, [3, 3, 7], steps=20, guidance=2))
  np.testing.assert_array_equal(served["y"], m.sample(5, 1, -1, steps=3))
