"""Samplers as files: what is in them, for which models, and what is refused."""

import json

import games
import jax
import numpy as np
import pytest
import untrained

from jaxgen.config import build
from jaxgen.convert import stablehlo
from jaxgen.errors import UserError
from jaxgen.models.cascade import Cascade

pytest.importorskip("flatbuffers")
MLP = dict(width=8, depth=1)
GAN = games.SPECS["gan"] | dict(gen=dict(name="nets.mlp.Generator", **MLP))
VAE = dict(name="models.vae.VAE", net=dict(name="nets.mlp.Codec", z_dim=3, **MLP))


def serve(path):
  """What a process does that has no jaxgen -> info, (key, inputs, **knobs) -> x."""
  file = np.load(path.with_suffix(".npz"), allow_pickle=False)
  info = json.loads(str(file["info"]))
  weights = {k: file[k] for k in info["weights"]}
  program = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)

  def run(seed, inputs, **knobs):
    knobs = {k: np.float32(v) for k, v in (info["knobs"] | knobs).items()}
    return program(weights, jax.random.key_data(jax.random.key(seed)), inputs, knobs)

  return info, run


def test_noise_may_be_an_input_and_batches_of_any_size(tmp_path):
  m, path = untrained.sampler_of(GAN), tmp_path / "gan.stablehlo"
  stablehlo.export_sampler(m, str(path), noise=True, temperature=0.5)
  info, run = serve(path)
  assert info["inputs"]["noise"] == {"dtype": "float32", "shape": ["batch", 2]}
  assert info["knobs"]["temperature"] == 0.5 and info["batch"] == "any"
  for n in (1, 3):
    z = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
    x = run(0, {"i": np.arange(n, dtype=np.int32), "noise": z})
    np.testing.assert_allclose(x, m.sample(0, n, noise=z, temperature=0.5), rtol=1e-6, atol=1e-6)


def test_a_knob_of_the_name_of_the_noise_gives_way(tmp_path):
  m, path = untrained.sampler_of(VAE), tmp_path / "vae.stablehlo"
  stablehlo.export_sampler(m, str(path), noise=True)
  assert set(serve(path)[0]["knobs"]) == {"temperature"}
  stablehlo.export_sampler(m, str(path))  # what is ours is replaced
  info, run = serve(path)
  x = run(4, {"i": np.arange(2, dtype=np.int32)}, noise=0.5)
  np.testing.assert_allclose(x, m.sample(4, 2, noise=0.5), rtol=1e-6, atol=1e-6)


def test_a_cascade_of_a_fixed_batch_takes_the_knobs_of_its_stages(tmp_path):
  enlarge = dict(low_res=dict(name="diffusion.degrade.area", size=4))
  stages = tuple(build(games.SPECS["unet"] | more) for more in ({}, dict(cond=enlarge)))
  cascade = Cascade(stages, ((4, 4, 1), (8, 8, 1)), (3, 3), np.dtype("uint8"))
  m = untrained.sampler_of(cascade, (8, 8, 1), 3, "uint8")
  path = tmp_path / "cascade.stablehlo"
  stablehlo.export_sampler(m, str(path), batch=2, steps_1=2, steps_0=3)
  info, run = serve(path)
  inputs = {"i": np.arange(2, dtype=np.int32), "labels": np.array([2, 1], np.int32)}
  x = run(0, inputs, guidance_0=2.0)
  want = m.sample(0, 2, [2, 1], steps_0=3, steps_1=2, guidance_0=2.0)
  np.testing.assert_array_equal(x, want)
  assert info["batch"] == 2 and info["model"]["workdir"] == "W"


def test_what_is_odd_is_refused_and_leaves_nothing(tmp_path, verb):
  m = untrained.sampler_of(GAN)
  (tmp_path / "mine.npz").write_bytes(b"mine")
  for out, kw, why in (
    ("x.onnx", {}, "want x.stablehlo"),
    ("mine.stablehlo", {}, "none that jaxgen would replace"),
    ("x.stablehlo", dict(steps=3), "no knob 'steps'"),
  ):
    with pytest.raises(UserError, match=why):
      stablehlo.export_sampler(m, str(tmp_path / out), **kw)
  for words, why in (
    (("--source=stablehlo", "--disc=d.pth"), "--disc is of weights"),
    (("--source=adm", "--steps=3"), "--steps is for --source=stablehlo"),
  ):
    status, _, err = verb("export", "--workdir=W", f"--out={tmp_path}/x.stablehlo", *words)
    assert status == 2 and len(err) == 1 and why in err[0]
  assert [p.name for p in tmp_path.iterdir()] == ["mine.npz"]
