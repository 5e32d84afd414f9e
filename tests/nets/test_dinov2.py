"""DINOv2's transformer gives what the published code gives."""

import functools
import json
import pathlib
import zlib

import jax
import numpy as np
import pytest
from inception_weights import saved

from jaxgen.errors import UserError
from jaxgen.evaluation import features
from jaxgen.evaluation import weights as published
from jaxgen.nets import dinov2

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASE = np.load(GOLDEN / "dinov2_tiny.npz")
MANIFEST = json.loads(str(CASE["manifest"]))
TINY = dinov2.DINOv2(width=32, depth=3, heads=4, grid=5)


def value(name, shape):
  """The golden case's rule."""
  z = np.random.Generator(
    np.random.PCG64([MANIFEST["seed"], zlib.crc32(name.encode())])
  ).standard_normal(shape)
  if len(shape) > 1 and "weight" in name:
    z /= np.sqrt(np.prod(shape[1:]))
  elif ("norm" in name and "weight" in name) or "gamma" in name:
    z = 1 + 0.2 * z
  else:
    z *= 0.5
  return z.astype(np.float32)


WEIGHTS = {k: value(k, s) for k, s in MANIFEST["state_dict"].items()}


def images():
  """The inputs, in the order in which they were drawn."""
  rng = np.random.default_rng(5)
  return {
    f"{h}x{w}": rng.normal(size=(2, h, w, 3)).astype(np.float32)
    for h, w in ((70, 70), (28, 28), (42, 56), (112, 112))
  }


@pytest.mark.parametrize("size", ["70x70", "28x28", "42x56", "112x112"])
def test_features_are_the_published_codes(size):
  # Of the grid's own size, and of others, whose positions lie between.
  params = dinov2.converted(WEIGHTS, TINY)
  y = jax.jit(lambda x: TINY.apply({"params": params}, x))(images()[size])
  expected = CASE[f"y_{size}"]
  assert y.shape == (2, 32)
  assert np.linalg.norm(y - expected) < 2e-6 * np.linalg.norm(expected)


def test_vit_l14_has_304_million_parameters():
  shapes = jax.eval_shape(
    dinov2.DINOv2().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
  )
  ours = sum(x.size for x in jax.tree.leaves(shapes))
  assert ours + 1024 == 304_368_640  # and the mask token, of training alone


def test_an_extractor_of_it(tmp_path, monkeypatch):
  # In the place of ViT-L/14, of which there are 1.2 GB.
  converted = functools.partial(dinov2.converted, net=TINY)
  monkeypatch.setattr(dinov2, "converted", converted)
  monkeypatch.setattr(dinov2, "DINOv2", lambda: TINY)
  path = saved(tmp_path / "tiny.pth", WEIGHTS)
  e = features.open_extractor("dinov2", path, batch=2)
  assert e.taps == ("cls",) and e.name == f"dinov2-vitl14-{e.sha256[:8]}"
  x = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3))
  ours = e.features([x.astype(np.uint8)])["cls"]
  mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  expected = jax.jit(lambda x: TINY.apply({"params": e.params}, x))(
    np.float32((x / 255 - mean) / std)
  )
  np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_other_files_are_refused(tmp_path):
  path = saved(tmp_path / "part.pth", {k: v for k, v in WEIGHTS.items() if k != "norm.bias"})
  with pytest.raises(UserError, match="does not hold DINOv2's weights"):
    published.dinov2(path)
  with pytest.raises(KeyError, match="norm.bias"):
    dinov2.converted({k: v for k, v in WEIGHTS.items() if k != "norm.bias"}, TINY)
