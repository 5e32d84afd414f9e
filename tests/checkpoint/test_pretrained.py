"""A user's files of published networks become a frozen group."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import filled, same
from inception_weights import saved

from jaxgen import config, core, sharding
from jaxgen.checkpoint import pretrained
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.data.points import open_points
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.nets.convs import Classifier, JudgeLayers
from jaxgen.nets.lpips import LPIPS

LOOKS = LPIPS("alex")
MODEL = types.SimpleNamespace(perceptual=LOOKS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Random weights of both files, by their published names."""
  rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("lpips")
  trunk, channels = {}, 3
  for layer in LOOKS.trunk.layers:
    shape = layer.width, channels, layer.kernel, layer.kernel
    trunk[f"features.{layer.number}.weight"] = rng.normal(size=shape).astype(np.float32)
    trunk[f"features.{layer.number}.bias"] = np.ones(layer.width, np.float32)
    channels = layer.width
  lin = {
    f"lin{i}.model.1.weight": np.full((1, t.width, 1, 1), 1 + i, np.float32)
    for i, t in enumerate(LOOKS.trunk.taps)
  }
  return {
    "JAXGEN_LPIPS_NET": saved(folder / "net.pth", trunk),
    "JAXGEN_LPIPS_LIN": saved(folder / "lin.pth", lin),
  }, trunk


def test_the_group_is_filled_before_the_first_step(files, monkeypatch):
  paths, trunk = files
  for name, path in paths.items():
    monkeypatch.setenv(name, str(path))
  params = {"net": {"w": jnp.ones(3)}, "perceptual": LOOKS.init()}
  state = core.State(jnp.int32(0), params, {}, {}, {}, jnp.zeros(2, jnp.int32))
  new = pretrained.fill(MODEL, state).params
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, params)
  kernel = trunk["features.3.weight"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(new["perceptual"]["trunk"]["conv_3"]["kernel"], kernel)
  np.testing.assert_array_equal(new["perceptual"]["linear"]["lin_2"], np.full(384, 3))
  assert new["net"] is params["net"]


def test_models_that_look_through_nothing_stay_as_they_are():
  state = object()
  assert pretrained.fill(types.SimpleNamespace(), state) is state


def test_files_that_are_not_there_or_others(files, monkeypatch):
  paths, _ = files
  with pytest.raises(UserError, match=r"perceptual is lpips@alex, and \$JAXGEN_LPIPS_NET names no"):
    pretrained.read(MODEL)
  monkeypatch.setenv("JAXGEN_LPIPS_NET", str(paths["JAXGEN_LPIPS_NET"]))
  with pytest.raises(UserError, match=r"\$JAXGEN_LPIPS_LIN names no file"):
    pretrained.read(MODEL)
  monkeypatch.setenv("JAXGEN_LPIPS_LIN", str(paths["JAXGEN_LPIPS_NET"]))
  with pytest.raises(UserError, match="do not hold lpips@alex: there is no lin0.model.1.weight"):
    pretrained.read(MODEL)
  monkeypatch.setenv("JAXGEN_LPIPS_LIN", str(paths["JAXGEN_LPIPS_LIN"]))
  with pytest.raises(UserError, match="do not hold lpips@vgg: it is of alex"):
    pretrained.read(types.SimpleNamespace(perceptual=LPIPS("vgg")))


def workdir_of(folder, name):
  """A tiny net of random weights and other averages: its data and state."""
  c = config.load(f"configs/{name}.py:debug")
  c.model.net.update(width=4)
  experiment, source = Experiment.of(c), open_data(c)
  state = filled(experiment.abstract(source, sharding.make_mesh()))
  state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
  with Checkpoints(str(folder), every=1, keep=2) as checkpoints:
    checkpoints.save(0, state, describe(c, source), force=True)
  return source, state


def test_a_judge_of_another_workdir(tmp_path):
  """Its averages are read, if it is a classifier of such images."""
  source, state = workdir_of(tmp_path / "J", "judge")
  model = lambda workdir="J", width=4: types.SimpleNamespace(
    perceptual=JudgeLayers(Classifier(width, 64, 10)),
    judge_workdir=str(tmp_path / workdir) if workdir else "",
  )
  params, stats = pretrained.read(model(), source)
  assert same(params, {"perceptual": state.ema["main"]["net"]}) and not stats
  read = lambda model, source=source: pretrained.read(model, source)
  with pytest.raises(UserError, match="judge_workdir names no workdir: train configs/judge.py"):
    read(model(""))
  with pytest.raises(UserError, match="judge_workdir=.*none: there is no folder"):
    read(model("none"))
  with pytest.raises(
    UserError, match=r"that judge was trained with net.width=4, .*width is 8: make"
  ):
    read(model(width=8))
  with pytest.raises(UserError, match=r"judge looks at images \(8, 8, 1\), and .* holds \(2,\)"):
    read(model(), open_points("ring8", "train"))
  workdir_of(tmp_path / "V", "digits_vae")
  with pytest.raises(UserError, match="a VAE was trained there: want a classifier of clean images"):
    read(model("V"))
