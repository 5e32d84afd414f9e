"""WaveGAN: the published code's numbers by definition, its counts, phase shuffle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import filled, jit, same
from scipy.special import erf

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.keys import example_keys
from jaxgen.nets.wavegan import Discriminator, Generator, shuffle_phase

KEY = jax.random.key(0)


def published(length, channels=64, taps=25):
  """Weights of chrisdonahue/wavegan's two nets at a length."""
  top = channels * (16 if length == 16_384 else 32)
  sizes = [top]
  while sizes[-1] > channels:
    sizes.append(sizes[-1] // 2)
  pairs = list(zip(sizes, [*sizes[1:], 1], strict=True))
  layers = sum(taps * i * o for i, o in pairs)
  gen = 100 * 16 * top + 16 * top + layers + sum(o for _, o in pairs)
  disc = layers + sum(i for i, _ in pairs) + 16 * top + 1
  return gen, disc


@pytest.mark.parametrize("arg", ["sc09", "sc09-class", "32768", "65536"])
def test_parameter_counts(arg):
  c = config.load(f"configs/wavegan.py:{arg}")
  model, length = build(c.model), c.data.size
  batch = {"x": jax.ShapeDtypeStruct((2, length, 1), jnp.float32)}
  if arg == "sc09-class":
    batch["y"] = jax.ShapeDtypeStruct((2,), jnp.int32)
  params, stats = jax.eval_shape(model.init, batch, KEY)
  counts = tuple(sum(x.size for x in jax.tree.leaves(params[g])) for g in ("gen", "disc"))
  expected = published(length)
  if "y" in batch:
    label = model.gen.label_dim
    expected = expected[0] + 10 * label + label * 16_384, expected[1] + 10 * 16_384
  assert counts == expected
  text = (config.OURS / "wavegan.py").read_text()
  assert all(f"{n:,}" in text for n in counts)
  state = core.State(0, params, stats, {}, {}, None)
  x = jax.eval_shape(model.sample, state, batch, example_keys(KEY, 2))
  assert x.shape == batch["x"].shape


def weights(net, *args):
  """Random ones, in the shapes of a net's."""
  shapes = jax.eval_shape(net.init, KEY, *args)
  rng = np.random.default_rng(3)
  draw = lambda s: np.float32(rng.normal(size=s.shape) / np.sqrt(max(np.prod(s.shape[:-1]), 1)))
  return jax.tree.map(draw, shapes)


def test_the_generator_by_definition():
  net = Generator(width=2, strides=(4, 2), bottom=3, post=6)
  z = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
  params = weights(net, z)
  p = params["params"]
  h = erf(np.float64(z) / np.sqrt(2)) @ p["first"]["kernel"] + p["first"]["bias"]
  h = h.reshape(2, 3, 4)
  for i, stride in enumerate((4, 2)):
    h, w = np.maximum(h, 0), np.float64(p[f"up_{i}"]["kernel"])
    up = np.zeros((2, h.shape[1] * stride, w.shape[2]))
    for j in range(h.shape[1]):
      for k in range(25):
        if 0 <= (at := stride * j + k - (25 - stride) // 2) < up.shape[1]:
          up[:, at] += h[:, j] @ w[k]
    h = up + p[f"up_{i}"]["bias"]
  padded = np.pad(np.tanh(h)[:, :, 0], ((0, 0), (2, 3)))
  filtered = np.stack([padded[:, i : i + 6] @ p["post"]["kernel"].ravel() for i in range(24)], 1)
  np.testing.assert_allclose(net.apply(params, z)[:, :, 0], filtered, atol=2e-6)


def test_the_discriminator_by_definition():
  net = Discriminator(width=2, strides=(4, 4), classes=3)
  x = np.random.default_rng(1).normal(size=(2, 48, 1)).astype(np.float32)
  y = np.array([2, 0])
  params = weights(net, x, y)
  p, h = params["params"], np.float64(x)
  for i in range(2):
    w, down = np.float64(p[f"down_{i}"]["kernel"]), []
    padded = np.pad(h, ((0, 0), (10, 11), (0, 0)))
    for j in range(h.shape[1] // 4):
      down.append(np.einsum("bkc,kco->bo", padded[:, 4 * j : 4 * j + 25], w))
    h = np.stack(down, 1) + p[f"down_{i}"]["bias"]
    h = np.maximum(h, 0.2 * h)
  h, head = h.reshape(2, -1), p["head"]
  logits = (h @ head["linear"]["kernel"] + head["linear"]["bias"])[:, 0]
  logits += np.sum(head["label"]["embedding"][y] * h, 1)
  np.testing.assert_allclose(net.apply(params, x, y), logits, atol=2e-6 * np.abs(logits).max())


def test_phases_are_shuffled_example_by_example():
  x = np.random.default_rng(0).normal(size=(64, 9, 2)).astype(np.float32)
  keys = example_keys(KEY, 64)
  out = np.asarray(shuffle_phase(x, keys, 2))
  padded = np.pad(x, ((0, 0), (2, 2), (0, 0)), mode="reflect")
  shifts = []
  for before, after in zip(padded, out, strict=True):
    (shift,) = [s for s in range(5) if (before[s : s + 9] == after).all()]
    shifts.append(shift)
  assert set(shifts) == set(range(5))
  np.testing.assert_array_equal(shuffle_phase(x[5:9], keys[5:9], 2), out[5:9])


def test_shuffling_is_of_training_and_of_the_first_layers():
  net = Discriminator(width=2, strides=(4, 4, 2))
  x = np.random.default_rng(1).normal(size=(4, 64, 1)).astype(np.float32)
  params = weights(net, x)
  plain = net.apply(params, x)
  keys = example_keys(KEY, 4)
  assert (net.apply(params, x, key=keys) != plain).any()
  none = net.clone(shuffled=0)
  np.testing.assert_array_equal(none.apply(params, x, key=keys), plain)
  np.testing.assert_array_equal(net.clone(shuffle=0).apply(params, x, key=keys), plain)
  np.testing.assert_array_equal(
    net.clone(shuffled=2).apply(params, x, key=keys), net.apply(params, x, key=keys)
  )


def test_parts_of_a_batch_give_its_gradient():
  """Draws are an example's own, whatever part of a batch it is in."""
  c = config.load("configs/wavegan.py:debug")
  for net in (c.model.gen, c.model.disc):
    net.width, net.strides = 2, (4, 4)
  model = build(c.model)
  x = np.random.default_rng(1).integers(-(2**15), 2**15, (4, 256, 1)).astype(np.int16)
  batch = {"x": x, "y": np.arange(4, dtype=np.int32)}
  tx = {g: build(s)(steps=9) for g, s in c.optim.items()}
  state = filled(jax.eval_shape(core.make_init(model, tx, ()), batch, KEY))
  steps = [core.make_step(model, tx, {}, accumulate=n) for n in (1, 2)]
  once, parts = (jit(functools.partial(step, (0, 1)))(state, batch, KEY)[1] for step in steps)
  for name in ("disc/grad_norm", "gen/grad_norm", "disc/gradient_penalty"):
    np.testing.assert_allclose(once[name], parts[name], rtol=1e-4)
  again = jit(functools.partial(steps[0], (0, 1)))(state, batch, KEY)[1]
  assert same(once, again)
