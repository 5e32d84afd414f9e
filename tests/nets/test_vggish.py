"""VGGish's embeddings are torchvggish's, with the same random weights."""

import pathlib

import jax
import numpy as np
import pytest
from vggish_weights import SHAPES, state_dict, waves

from jaxgen.audio.patches import patches
from jaxgen.nets.vggish import VGGish, converted

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "vggish.npz"


def test_embeddings_are_the_references(unoptimised):
  tensors = state_dict()
  params = converted(tensors | {"pproc.pca_means": np.zeros((128, 1))})
  assert sum(a.size for a in jax.tree.leaves(params)) == 72_141_184
  x, want = patches(waves()).reshape(-1, 96, 64), np.load(GOLDEN)["embeddings"]

  own = jax.jit(VGGish().apply)({"params": params}, x)
  assert want.std() > 0.1
  np.testing.assert_allclose(own, want, atol=2e-4 * np.abs(want).max())


def test_other_weights_are_refused():
  tensors = {f"{k}.bias": np.zeros(s[0]) for k, s in SHAPES.items()}
  tensors |= {f"{k}.weight": np.broadcast_to(np.float32(0), s) for k, s in SHAPES.items()}
  with pytest.raises(ValueError, match="features.3"):
    converted(tensors | {"features.3.weight": tensors["features.0.weight"]})
  del tensors["embeddings.2.bias"]
  with pytest.raises(KeyError, match="embeddings.2.bias"):
    converted(tensors)
