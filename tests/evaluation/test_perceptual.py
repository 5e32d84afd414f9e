"""LPIPS is what its authors' code says; a classifier's distance is by hand."""

import dataclasses
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inception_weights import saved

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.evaluation import perceptual
from jaxgen.metrics.perceptual_distance import distance
from jaxgen.models.classifier import Classifier
from jaxgen.nets import convs, lpips
from jaxgen.sampling.sampler import Sampler

CASE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "lpips_random.npz")
SEED = json.loads(str(CASE["manifest"]))["seed"]


def value(name, shape):
  """The golden case's rule."""
  z = np.random.Generator(np.random.PCG64([SEED, zlib.crc32(name.encode())])).standard_normal(shape)
  if name.startswith("lin"):
    z = abs(z)
  else:
    z *= np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
  return z.astype(np.float32)


def weights(net):
  """Of torchvision's features, and the linear ones."""
  trunk = {"alex": lpips.ALEX, "vgg": lpips.VGG}[net]
  lin = {f"lin{i}.model.1.weight": (1, t.width, 1, 1) for i, t in enumerate(trunk.taps)}
  shapes = json.loads(str(CASE[f"{net}_names"]))
  return ({k: value(k, s) for k, s in shapes.items()}, {k: value(k, s) for k, s in lin.items()})


def images():
  """The inputs: small noise, large noise, and a constant image."""
  rng = np.random.default_rng(7)
  x = rng.integers(0, 256, (3, 64, 48, 3), np.uint8)
  noise = rng.integers(-40, 41, x.shape)
  y = np.clip(x + noise * np.array([1, 2, 0]).reshape(-1, 1, 1, 1), 0, 255)
  y[2] = 90
  return x, y.astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """The weights of both networks, as PyTorch saves them."""
  folder, results = tmp_path_factory.mktemp("lpips"), {}
  for net in ("alex", "vgg"):
    trunk, lin = weights(net)
    results[net] = (saved(folder / f"{net}.pth", trunk), saved(folder / f"{net}_lin.pth", lin))
  return results


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_its_authors_code(files, net):
  looks = perceptual.open_lpips(*files[net])

  @jax.jit
  def by_layer(params, x, y):
    a, b = (looks.features(params, i) for i in (x, y))
    layers = [distance([p], [q], [w]) for p, q, w in zip(a, b, looks.linear, strict=True)]
    return distance(a, b, looks.linear), jnp.stack(layers), distance(a, b)

  results = by_layer(looks.params, *((np.float32(i) - 127.5) / 127.5 for i in images()))
  for ours, theirs in zip(results, ("", "_layers", "_unweighted"), strict=True):
    np.testing.assert_allclose(ours, CASE[net + theirs], rtol=1e-5)
  assert looks.name == f"lpips@{net}" and not looks.card["published"]
  assert len(looks.card["net"]["sha256"]) == 64 == len(looks.card["lin"]["sha256"])


def test_batches_do_not_matter_and_equal_images_are_0_apart(files):
  looks = dataclasses.replace(perceptual.open_lpips(*files["alex"]), batch=5)
  x, y = images()
  many = np.concatenate([x, y] * 2), np.concatenate([y, y] * 2)
  d = looks.distances(*many)  # 12 pairs: three batches, the last one padded
  assert d.dtype == np.float64
  np.testing.assert_allclose(d, np.tile([*CASE["alex"], 0, 0, 0], 2), rtol=1e-5, atol=1e-12)


def test_grey_images_are_seen_as_three_channels_alike(files):
  looks = dataclasses.replace(perceptual.open_lpips(*files["alex"]), batch=3)
  x, y = (i[..., :1] for i in images())
  np.testing.assert_allclose(
    looks.distances(x, y), looks.distances(*(i.repeat(3, -1) for i in (x, y))), rtol=1e-6
  )


@pytest.mark.parametrize("trunk", [lpips.ALEX, lpips.VGG])
def test_the_smallest_images(trunk):
  def last(side):
    params, channels = [], 3
    for t in trunk.layers:
      shape = t.kernel, t.kernel, channels, t.width
      params.append(
        {
          "kernel": jax.ShapeDtypeStruct(shape, jnp.float32),
          "bias": jax.ShapeDtypeStruct((t.width,), jnp.float32),
        }
      )
      channels = t.width
    return jax.eval_shape(
      lambda p, x: lpips.features(trunk, p, x),
      params,
      jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32),
    )[-1].shape

  assert last(trunk.least)[1:] == (1, 1, trunk.layers[-1].width)
  with pytest.raises((ValueError, ZeroDivisionError, AssertionError)):
    assert last(trunk.least - 1)[1] > 0


def test_distance_of_misfits():
  a, b = np.ones((2, 4, 4, 3)), np.ones((2, 4, 4, 5))
  for args in ([a], [b]), ([], []), ([a], [a, a]), ([a], [a], [np.ones(5)]):
    with pytest.raises(ValueError, match="features of"):
      distance(*args)
  assert distance([a], [0 * a]).tolist() == pytest.approx([1, 1])


def test_files_that_do_not_fit(files, tmp_path, monkeypatch):
  net, lin = files["alex"]
  for args, message in (
    ((net, None), "there is no --lpips_lin"),
    ((None, lin), "there is no --lpips_net"),
    ((net, files["vgg"][1]), "lin1.model.1.weight has shape"),
    ((lin, lin), "torchvision's weights.*there is no features.0.weight"),
    ((net, net), "linear weights.*there is no lin0.model.1.weight"),
    ((tmp_path / "no.pth", lin), "there is no file"),
  ):
    with pytest.raises(UserError, match=message):
      perceptual.open_lpips(*args)
  assert not perceptual.is_in_environment()
  monkeypatch.setenv("JAXGEN_LPIPS_NET", str(net))
  monkeypatch.setenv("JAXGEN_LPIPS_LIN", str(lin))
  assert perceptual.is_in_environment()
  looks = perceptual.open_lpips()
  assert looks.card["net"]["file"] == "alex.pth"
  with pytest.raises(UserError, match="31x31 or more"):
    looks.distances(*(i[:, :30, :30] for i in images()))


def untrained(name, **changes):
  """A config's model of random weights, as `load` would give it."""
  c = config.load(f"configs/{name}.py")
  c.model.net.update(changes)
  model, rng = build(c.model), np.random.default_rng(1)
  shapes, stats = jax.eval_shape(model.init, {"x": jnp.zeros((1, 8, 8, 1))}, jax.random.key(0))
  params = jax.tree.map(lambda s: jnp.float32(rng.normal(0.3, 0.3, s.shape)), shapes)
  state = core.State(
    step=jnp.int32(0), params=params, stats=stats, opt={}, ema={}, skips=jnp.zeros(2, jnp.int32)
  )
  return Sampler(
    model, state, (8, 8, 1), np.dtype("uint8"), 10, {"workdir": "W", "dataset": "digits"}
  )


def test_a_classifiers_distance_is_by_hand():
  sampler = untrained("judge", width=8)
  looks = perceptual.of_classifier(sampler)
  assert looks.name == "perceptual@digits-cnn"
  rng = np.random.default_rng(0)
  x, y = rng.integers(0, 256, (2, 5, 8, 8, 1), np.uint8)
  p = jax.tree.map(np.float64, jax.device_get(sampler.state.params["net"]["encoder"]))
  # What the encoder does on 8x8: two blocks before it is small enough.
  fx, fy = (by_hand(p, (np.float64(i) - 127.5) / 127.5) for i in (x, y))
  assert [f.shape for f in fx] == [(5, 8, 8, 8), (5, 4, 4, 16), (5, 4, 4, 16)]
  unit = lambda f: f / np.linalg.norm(f, axis=-1, keepdims=True)
  expected = sum(
    ((unit(a) - unit(b)) ** 2).sum(-1).mean((1, 2)) for a, b in zip(fx, fy, strict=True)
  )
  np.testing.assert_allclose(looks.distances(x, y), expected, rtol=1e-5)
  # As a part of a loss it is the same, times a weight.
  params = sampler.state.params["net"]
  for weight in (1.0, 0.5):
    layers = convs.JudgeLayers(sampler.model.net, weight)
    seen = (layers.features(params, core.on_device(jnp.asarray(i))) for i in (x, y))
    np.testing.assert_allclose(distance(*seen, layers.linear(params)), weight * expected, rtol=1e-4)
  shapes = layers.init(jnp.zeros((1, 8, 8, 1)))
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
  # Larger images shrink to the size that it was trained on.
  x, y = (i.repeat(2, 1).repeat(2, 2) for i in (x, y))
  larger = perceptual.of_classifier(sampler, "both", (16, 16, 1))
  np.testing.assert_allclose(larger.distances(x, y), expected, rtol=1e-5)
  assert larger.name == "perceptual@both" and larger.card["resize"] == "to 8"


def by_hand(p, x):
  """Activations of nets.convs.Encoder after each norm, in float64."""
  silu = lambda h: h / (1 + np.exp(-h))

  def conv(h, name, stride=1):
    k = p[name]["kernel"]
    # SAME: of stride 2 on an even size, all of its padding comes last.
    before = 1 if stride == 1 else 0
    pad = np.pad(h, ((0, 0), (before, 2 - before), (before, 2 - before), (0, 0)))
    n = h.shape[1] // stride
    return p[name]["bias"] + sum(
      pad[:, i : i + n * stride : stride, j : j + n * stride : stride] @ k[i, j]
      for i in range(3)
      for j in range(3)
    )

  def norm(h, name):
    groups = h.shape[-1] // 4
    g = h.reshape(*h.shape[:3], groups, 4)
    mean, var = (f(g, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    g = ((g - mean) / np.sqrt(var + 1e-5)).reshape(h.shape)
    return silu(g * p[name]["scale"] + p[name]["bias"])

  h = conv(x, "Conv_0")
  first = norm(h, "GroupNorm_0")
  h = conv(conv(first, "Conv_1"), "Conv_2", 2)
  second = norm(h, "GroupNorm_1")
  return [first, second, norm(conv(second, "Conv_3"), "GroupNorm_2")]


def test_what_is_no_such_classifier():
  looks = perceptual.of_classifier(untrained("judge", width=8))
  with pytest.raises(UserError, match=r"looks at images \[8, 8, 1\]"):
    looks.distances(*images())
  for model, why in (
    (object(), "is no classifier of nets.convs"),
    (build(config.load("configs/digits_guide.py").model), "nets.convs"),
    (Classifier(convs.Classifier(), process=lambda t: t), "noisy images"),
  ):
    with pytest.raises(UserError, match=why):
      perceptual.of_classifier(
        Sampler(model, None, (8, 8, 1), np.dtype("uint8"), 10, {"workdir": "W"})
      )
