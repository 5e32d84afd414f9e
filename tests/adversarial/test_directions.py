"""Directions of a generator: closed forms, and what edits do with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import SPECS, filled

from jaxgen import core
from jaxgen.adversarial.directions import moved, principal, sefa
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.sampling import style_edit
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state

RNG = np.random.default_rng(0)
STYLES = SPECS["norms"] | dict(
  gen=dict(
    name="nets.stylegan2.Generator",
    size=8,
    channels=1,
    classes=3,
    base=64,
    most=8,
    w_dim=8,
    layers=2,
  )
)


def sampler(spec):
  """Of weights away from zero."""
  model = build(spec)
  batch = {"x": jnp.zeros((2, 8, 8, 1)), "y": jnp.zeros(2, jnp.int32)}
  params, stats = jax.eval_shape(model.init, batch, jax.random.key(0))
  state = filled(core.State(0, params, stats, {}, {}, None))
  state = sampling_state(0, {"gen": state.params["gen"]}, {"gen": state.stats["gen"]})
  return Sampler(model, state, (8, 8, 1), np.dtype(np.uint8), 3, {"workdir": "W", "sampler": None})


@pytest.fixture(scope="module")
def styles():
  one = sampler(STYLES)
  gen = one.state.params["gen"]  # layers of the mapping multiply by 0.01
  mapping = jax.tree.map(lambda x: 100 * x, gen["mapping"])
  return dataclasses.replace(
    one, state=one.state.replace(params={"gen": gen | {"mapping": mapping}})
  )


def test_no_direction_changes_layers_more_than_sefas_first():
  kernels = [RNG.normal(size=(6, n)) for n in (5, 11)]
  found = sefa([jnp.float32(k) for k in kernels])
  A = np.concatenate([k / np.linalg.norm(k, axis=0) for k in kernels], 1)
  gains = np.linalg.norm(found.vectors @ A, axis=-1)
  np.testing.assert_allclose(gains, np.linalg.svd(A, compute_uv=False), rtol=1e-4)
  np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(6), atol=1e-5)
  others = RNG.normal(size=(1000, 6))
  others /= np.linalg.norm(others, axis=-1, keepdims=True)
  assert np.linalg.norm(others @ A, axis=-1).max() <= gains[0] * (1 + 1e-5)


def test_components_of_draws_are_those_of_their_covariance():
  axes, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
  spread = np.array([3.0, 1.0, 0.3])
  draws = RNG.normal(size=(20_000, 3)) * spread @ axes.T + [5.0, -2.0, 1.0]
  found = principal(jnp.float32(draws))
  np.testing.assert_allclose(found.lengths, spread, rtol=0.03)
  np.testing.assert_allclose(np.abs(np.sum(found.vectors * axes.T, -1)), 1, atol=1e-3)
  there = moved(jnp.zeros((2, 3)), found, 1, jnp.array([[2.0], [0.0]]))
  np.testing.assert_allclose(np.linalg.norm(there, axis=-1), [2 * found.lengths[1], 0], rtol=1e-5)


def test_the_layer_that_reads_z_is_found():
  """Labels beside z do not count: its own rows do."""
  one = sampler(SPECS["norms"])
  kernel = one.state.params["gen"]["Dense_0"]["kernel"]
  (found,) = style_edit.kernels_of(one.model, one.state, None)
  np.testing.assert_allclose(found, kernel[: one.model.z_dim], rtol=1e-4, atol=1e-6)


def test_styles_are_read_in_the_order_of_layers(styles):
  kernels = style_edit.kernels_of(styles.model, styles.state, None)
  gen = styles.state.params["gen"]
  want = [("synthesis_b4", "conv1"), ("synthesis_b8", "conv0"), ("synthesis_b8", "conv1")]
  assert len(kernels) == 3
  for kernel, (block, conv) in zip(kernels, want, strict=True):
    np.testing.assert_array_equal(kernel, gen[block][conv]["affine"]["kernel"])
  assert len(style_edit.kernels_of(styles.model, styles.state, (1, 2))) == 1


def test_an_edit_begins_at_the_image_and_compiles_once(styles):
  w, directions = np.ones((2, 8), np.float32), style_edit.directions_of(styles, "sefa")
  one = style_edit.edited(styles, w, directions, 3, (0.0, 1.0, 5.0), (0, 1))
  assert one.shape == (2, 3, 8, 8, 1)
  programs = style_edit._move._cache_size()
  two = style_edit.edited(styles, w, directions, 1, (0.0, 1.0, 2.0), (0, 4))
  assert style_edit._move._cache_size() == programs
  np.testing.assert_array_equal(one[:, 0], two[:, 0])
  assert (two[:, 2] != two[:, 0]).any() and (one[:, 2] != one[:, 1]).any()


def test_components_are_in_units_of_their_spread(styles):
  directions = style_edit.directions_of(styles, "ganspace")
  y = jnp.arange(style_edit.DRAWS) % 3
  w = style_edit._styles(styles.model, styles.state, jax.random.key(0), y)
  along = (w - w.mean(0)) @ directions.vectors.T
  np.testing.assert_allclose(along.std(0), directions.lengths, rtol=1e-3, atol=1e-4)
  assert directions.lengths[0] > directions.lengths[-1]


@pytest.mark.parametrize(
  "ask, says",
  [
    (dict(how="pca"), "sefa or ganspace"),
    (dict(how="sefa", layers=(3, 4)), "there are 3 convolutions"),
  ],
)
def test_ways_that_there_are_not(styles, ask, says):
  with pytest.raises(UserError, match=says):
    style_edit.directions_of(styles, **ask)


def test_edits_that_there_are_not(styles):
  directions = style_edit.directions_of(styles, "sefa")
  w = np.ones((1, 8), np.float32)
  with pytest.raises(UserError, match="--direction=8: want 0 to 7"):
    style_edit.edited(styles, w, directions, 8, (1.0,))
  with pytest.raises(UserError, match="--layers=2:9: want two of 0 to 4"):
    style_edit.edited(styles, w, directions, 0, (1.0,), (2, 9))
  plain = sampler(SPECS["norms"])
  with pytest.raises(UserError, match="looks at styles, and a Generator has none"):
    style_edit.directions_of(plain, "ganspace")
