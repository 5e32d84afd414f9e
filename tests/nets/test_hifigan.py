"""HiFi-GAN's nets: the numbers of the published code, exact counts."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import config
from jaxgen.audio.mel import HiFiMel
from jaxgen.config import build
from jaxgen.interop import hifigan_names, names
from jaxgen.interop.tensors import lazy
from jaxgen.models.vocoder_gan import apart
from jaxgen.nets.hifigan import HiFiDiscriminator, HiFiGenerator

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
GENS = {
  "paired": dict(
    width=32, rates=(4, 2), taps=(8, 4), kernels=(3, 7), dilations=((1, 3, 5), (1, 3, 5))
  ),
  "single": dict(
    width=16, rates=(4, 3), taps=(8, 7), kernels=(3, 5), dilations=((1, 2), (2, 6)), paired=False
  ),
}


@functools.cache
def golden():
  file = np.load(GOLDEN / "hifigan.npz")
  return file, json.loads(str(file["manifest"]))


def tensors(case):
  """A net's weights by the rule of golden/README.md."""
  _, manifest = golden()
  rows = draws(manifest["seed"][case], manifest["state_dict"][case])
  values = {name: scaled(z) if z.ndim >= 2 else np.float32(0.1) * z for name, z, _ in rows}
  return {name: lazy(z) for name, z in values.items()}


def shapes(net, *args):
  return jax.eval_shape(net.init, KEY, *args)


@pytest.mark.parametrize("case", GENS)
def test_the_generator_of_the_reference(case):
  """And after its norms were removed, and by the names of today."""
  net, (file, _) = HiFiGenerator(**GENS[case]), golden()
  mel = jnp.asarray(file["spectrogram"].swapaxes(1, 2))
  table = hifigan_names.gen_entries(shapes(net, mel)["params"])
  theirs = tensors(case)
  params = names.fill(table, hifigan_names.incoming(theirs))
  F = jit(lambda params: net.apply({"params": params}, mel))
  near(F(params), file[case].swapaxes(1, 2), 2e-4)
  today = {
    k.replace("weight_g", "parametrizations.weight.original0").replace(
      "weight_v", "parametrizations.weight.original1"
    ): t
    for k, t in theirs.items()
  }
  jax.tree.map(
    np.testing.assert_array_equal, params, names.fill(table, hifigan_names.incoming(today))
  )
  fused = {k: t for k, t in theirs.items() if k.endswith("bias")}
  for name in {k[:-2] for k in theirs if k.endswith("_v")}:
    v, g = theirs[f"{name}_v"].read(), theirs[f"{name}_g"].read()
    fused[name] = lazy(v * g / np.sqrt(np.sum(v**2, (1, 2), keepdims=True)))
  near(F(names.fill(table, hifigan_names.incoming(fused))), file[case].swapaxes(1, 2), 2e-4)


def test_the_discriminators_of_the_reference():
  """In training: of real, then of fake, with the vectors that real left."""
  widths = dict(period_widths=(4, 16, 64, 128, 128), scale_widths=(16, 16, 32, 64, 128, 128, 128))
  net, (file, manifest) = HiFiDiscriminator(**widths), golden()
  real, fake = (jnp.asarray(file[k].swapaxes(1, 2)) for k in ("real", "fake"))
  theirs = {f"{k}.{name}": t for k in ("mpd", "msd") for name, t in tensors(k).items()}
  table = hifigan_names.disc_entries(shapes(net, real))
  variables = names.fill(table, hifigan_names.incoming(theirs))
  run = jit(lambda variables, x: net.apply(variables, x, mutable=["spectral"]))
  (on_real, of_real), moved = run(variables, real)
  (on_fake, of_fake), _ = run(variables | moved, fake)
  cases = [("mpd", i) for i in range(5)] + [("msd", i) for i in range(3)]
  for (kind, i), *ours in zip(cases, on_real, on_fake, strict=True):
    for name, logits in zip(("real", "fake"), ours, strict=True):
      want = file[f"{kind}_{i}_{name}"]
      # Columns of a period are rows of theirs.
      got = np.asarray(logits)
      if kind == "mpd":
        period = (2, 3, 5, 7, 11)[i]
        got = got.reshape(len(got), period, -1).swapaxes(1, 2).reshape(len(got), -1)
      near(got, want.reshape(len(want), -1), 2e-4)
  for kind, part in (("mpd", slice(0, 5)), ("msd", slice(5, 8))):
    features = map(apart, jax.tree.leaves(of_real[part]), jax.tree.leaves(of_fake[part]))
    assert float(2 * sum(features)) == pytest.approx(manifest["losses"][kind][2], rel=2e-4)


def test_spectra_are_theirs():
  wave = np.load(GOLDEN / "wavenet.npz")["wave"].astype(np.float32)
  wave, (file, _) = wave[: len(wave) // 256 * 256], golden()
  near(HiFiMel()(wave), file["mel"].T, 1e-5)
  near(HiFiMel(highest=0.0)(wave), file["mel_loss"].T, 1e-5)


@pytest.mark.parametrize(("arg", "want"), [("v1", 13_936_130), ("v2", 928_514), ("v3", 1_464_322)])
def test_generators_are_as_large_as_published(arg, want):
  net = build(config.load(f"configs/hifigan.py:{arg}").model.gen)
  tree = shapes(net, jnp.zeros((1, 4, 80)))["params"]
  assert sum(x.size for x in jax.tree.leaves(tree)) == want


def test_discriminators_are_as_large_as_published():
  tree = shapes(HiFiDiscriminator(), jnp.zeros((1, 8192, 1)))["params"]
  size = lambda kind: sum(
    x.size for k, part in tree.items() if k.startswith(kind) for x in jax.tree.leaves(part)
  )
  assert (size("period"), size("scale")) == (41_105_770, 29_618_821)
