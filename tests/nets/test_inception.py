"""Features are the references' own, whatever sizes and batches images have."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla
from inception_weights import golden, saved, state_dict
from jax.extend import core
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.evaluation import features, resize
from jaxgen.evaluation import resize as evaluation_resize
from jaxgen.evaluation import weights as published
from jaxgen.evaluation.features import batch_size, early
from jaxgen.nets import dinov2, inception

TAPS = ("pool3", "64", "192", "768", "spatial", "logits", "logits_unbiased")


@pytest.fixture(scope="module")
def of(tmp_path_factory):
  """(resize) -> Inception with random weights, read once."""
  path = saved(tmp_path_factory.mktemp("weights") / "inception.pth")
  first = features.inception(path, batch=5)

  def extractor(way):
    with pytest.MonkeyPatch.context() as patch:
      found = published.Weights(first.params, first.sha256, path.name, False)
      patch.setattr(published, "inception", lambda name: found)
      return features.inception(path, way, batch=5)

  return functools.cache(extractor)


def distance(a, b):
  """Relative, in L2."""
  return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
  "way, theirs", [("tf", "tf1"), ("half_pixel", "half_pixel"), ("clean", "clean")]
)
def test_features_are_the_references(of, way, theirs):
  case, manifest = golden()
  images = [case[f"x_{i}"] for i in range(10)]
  e = of(way)
  # Batches of three images of one size, two of another, then one by one.
  batches = [np.stack(images[:3]), np.stack(images[3:5]), *(x[None] for x in images[5:])]
  found = e.features(iter(batches), TAPS)
  for tap in TAPS:
    layer = tap.replace("pool3", "2048")
    if f"{theirs}_{layer}" not in case:
      continue
    rows = found[tap][:, :: manifest["stride"][layer]]
    assert rows.dtype == np.float32 and len(found[tap]) == 10
    assert distance(rows, case[f"{theirs}_{layer}"]) < 5e-5, tap
    # Nor may one image hide among the others.
    worst = max(map(distance, rows, case[f"{theirs}_{layer}"]))
    assert worst < 1e-3, tap


def test_other_resizes_are_far_away():
  # So that the test above can fail: what it tells apart, in the same measure.
  case, _ = golden()
  for layer, least in ("64", 1e-2), ("2048", 1e-2):
    for other in "half_pixel", "clean":
      assert distance(case[f"{other}_{layer}"], case[f"tf1_{layer}"]) > least


def test_it_has_the_references_parameters():
  _, manifest = golden()
  shapes = jax.eval_shape(
    inception.Inception().init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32),
  )["params"]
  sizes = {k: np.prod(s) for k, s in manifest["state_dict"].items()}
  # Of each batch norm's four vectors one is left, as the convolution's bias.
  assert sum(x.size for x in jax.tree.leaves(shapes)) == sum(
    n for k, n in sizes.items() if k.endswith((".conv.weight", ".bn.bias")) or k.startswith("fc.")
  )
  assert len(jax.tree.leaves(shapes)) == 94 * 2 + 2


def test_folding_is_the_batch_norm():
  rng = np.random.default_rng(0)
  weights = state_dict()
  params = inception.folded(weights)["Conv2d_1a_3x3"]
  x = rng.normal(size=(2, 9, 9, 3)).astype(np.float32)
  run = lambda x, kernel: np.asarray(
    jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "VALID", precision="highest", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    np.float64,
  )
  of = lambda k: weights[f"Conv2d_1a_3x3.{k}"].astype(np.float64)
  y = run(x, weights["Conv2d_1a_3x3.conv.weight"].transpose(2, 3, 1, 0))
  y = of("bn.weight") * (y - of("bn.running_mean")) / np.sqrt(of("bn.running_var") + 1e-3) + of(
    "bn.bias"
  )
  np.testing.assert_allclose(run(x, params["kernel"]) + params["bias"], y, atol=1e-5)


@pytest.mark.parametrize("h, w", [(7, 7), (8, 5), (3, 12)])
def test_pools_by_slices_are_flaxs(h, w):
  x = jax.random.normal(jax.random.key(0), (2, h, w, 3)) - 2  # maxima below the padding's 0
  run = lambda pool, **kw: np.asarray(pool(x, (3, 3), **kw))
  np.testing.assert_array_equal(
    inception.by_slices(x, jnp.maximum, 2), run(nn.max_pool, strides=(2, 2))
  )
  np.testing.assert_array_equal(inception.maximum(x), run(nn.max_pool, padding="SAME"))
  means = run(nn.avg_pool, padding="SAME", count_include_pad=False)
  np.testing.assert_allclose(inception.average(x), means, rtol=1e-5, atol=1e-6)


def test_convolutions_without_padding_are_cropped_ones():
  rng = np.random.default_rng(0)
  x, kernel = rng.normal(size=(2, 9, 8, 3)), rng.normal(size=(3, 3, 3, 4))
  dims = ("NHWC", "HWIO", "NHWC")
  with jax.enable_x64(True):
    want = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims)
    y = inception.valid_conv(x, kernel, (1, 1), "VALID", dimension_numbers=dims)
  np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-12)


def test_average_pools_do_not_count_their_padding():
  x = jax.random.normal(jax.random.key(0), (1, 5, 5, 2))
  ones = inception.average(jnp.ones((1, 5, 5, 2)))
  np.testing.assert_allclose(ones, 1, rtol=1e-6)
  np.testing.assert_allclose(inception.average(x)[0, 0, 0], x[0, :2, :2].mean((0, 1)), rtol=1e-5)
  np.testing.assert_allclose(inception.maximum(x)[0, 4, 2], x[0, 3:, 1:4].max((0, 1)))


def position(way, i, size, out):
  """Where pixel i comes from, by the definition, in float64."""
  if way == "tf":
    return i * size / out
  return max((i + 0.5) * size / out - 0.5, 0)


@pytest.mark.parametrize("way, grid", [("tf", resize.tf1), ("half_pixel", resize.half_pixel)])
@pytest.mark.parametrize("h, w", [(5, 9), (13, 13), (40, 3), (1, 2)])
def test_resizes_by_their_definition(way, grid, h, w):
  x = np.random.default_rng(h).integers(0, 256, (h, w, 3)).astype(np.uint8)
  y = np.empty((13, 13, 3))
  for i, j in np.ndindex(13, 13):
    a, b = position(way, i, h, 13), position(way, j, w, 13)
    rows = [(int(a), 1 - a % 1), (min(int(a) + 1, h - 1), a % 1)]
    columns = [(int(b), 1 - b % 1), (min(int(b) + 1, w - 1), b % 1)]
    y[i, j] = sum(p * q * x[r, c].astype(float) for r, p in rows for c, q in columns)
  found = resize.interpolate(x, grid(h, 13), grid(w, 13))
  np.testing.assert_allclose(found, y, atol=1e-3)
  if way == "tf" and (h, w) == (13, 13):
    np.testing.assert_array_equal(found, x)


def test_sizes_that_differ_share_programs():
  way = evaluation_resize.bilinear(resize.tf1, 13)
  enter, rng = jax.jit(way.enter), np.random.default_rng(0)
  for _ in range(5):
    images = [
      rng.integers(0, 256, (*hw, 3)).astype(np.uint8) for hw in rng.integers(17, 33, (4, 2))
    ]
    found = enter(*way.prepare(images))
    for y, x in zip(found, images, strict=True):
      (alone,) = enter(*way.prepare([x]))
      np.testing.assert_allclose(y, alone, atol=1e-3)
    assert way.prepare(images)[0].shape == (4, 32, 32, 3)


def test_clean_resizes_are_pils_of_floats():
  x = np.random.default_rng(0).integers(0, 2, (20, 30, 3)).astype(np.uint8)
  x *= 255  # cubic curves overshoot
  over = evaluation_resize.smooth(x, 40)
  assert over.min() < -1 and over.max() > 256
  clean = evaluation_resize.clean(x, 40)
  np.testing.assert_array_equal(clean, over.clip(0, 255))
  x = x // 4 + 90  # where nothing is clipped, rounding is all that PIL adds
  pil = np.asarray(Image.fromarray(x).resize((40, 40), Image.BICUBIC))
  assert 0 < np.abs(evaluation_resize.clean(x, 40) - pil).max() < 1.1
  np.testing.assert_array_equal(evaluation_resize.rounded(x, 40), pil)
  # Smoothed before it shrinks: a chequerboard becomes grey.
  board = np.indices((64, 64)).sum(0)[..., None].repeat(3, -1) % 2 * 255
  assert np.abs(evaluation_resize.clean(board.astype(np.uint8), 8)[2:-2, 2:-2] - 127.5).max() < 3


@pytest.mark.parametrize(
  "bad, why",
  [
    (np.zeros((2, 8, 8, 3), np.float32), "uint8"),
    (np.zeros((2, 8, 8, 4), np.uint8), r"\[H, W, 3\].*\[8, 8, 4\]"),
    (np.zeros((2, 8, 8), np.uint8), r"\[8, 8\]"),
  ],
)
def test_other_things_than_images_are_refused(of, bad, why):
  with pytest.raises(UserError, match=why):
    of("tf").features([bad])


def test_names_that_there_are_not(of):
  e = of("tf")
  assert e.name == f"inception-{e.sha256[:8]}" and not e.card["published"]
  with pytest.raises(UserError, match="'2048', but 64, .*pool3"):
    e.features([np.zeros((1, 8, 8, 3), np.uint8)], ("2048",))
  with pytest.raises(UserError, match="no images"):
    e.features([])
  with pytest.raises(UserError, match="'bicubic', but tf"):
    features.inception(None, "bicubic")
  with pytest.raises(UserError, match="vgg"):
    features.open_extractor("vgg")


def precisions(jaxpr):
  """Of all matrix products and convolutions, to any depth."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
      yield eqn.params["precision"]
    for inner in core.jaxprs_in_params(eqn.params):
      yield from precisions(inner)


@pytest.mark.parametrize(
  "net, size, least", [(inception.Inception(), 299, 96), (dinov2.DINOv2(depth=2), 28, 15)]
)
def test_matrix_products_keep_all_digits(net, size, least):
  # TPUs and GPUs drop some unless they are told.
  x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), x)
  found = list(precisions(jax.make_jaxpr(net.apply)(params, x).jaxpr))
  highest = jax.lax.Precision.HIGHEST
  assert len(found) >= least and set(found) == {(highest, highest)}


class Mean:
  """A classifier whose features are easy to tell."""

  def embed(self, state, batch):
    return batch["x"].mean((1, 2)) * state["gain"]

  def logits(self, state, batch):
    return batch["x"].sum((1, 2, 3))[:, None] * jnp.ones(5)


def expected(x):
  return 2 * (x.astype(np.float64) / 127.5 - 1).mean((1, 2))


@functools.cache
def means(batch=8):
  return features.classifier(Mean(), {"gain": jnp.float32(2)}, "mean", "00", batch)


@pytest.mark.parametrize("lengths", [(1,), (8,), (9,), (3, 5, 20, 1), (40,)])
def test_rows_are_the_images_in_order(lengths):
  rng = np.random.default_rng(0)
  batches = [rng.integers(0, 256, (n, 4, 4, 1)).astype(np.uint8) for n in lengths]
  found = means().features(iter(batches), ("features", "logits"))
  np.testing.assert_allclose(found["features"], expected(np.concatenate(batches)), atol=1e-6)
  assert found["logits"].shape == (sum(lengths), 5)
  assert means()._look._cache_size() <= 2  # one for each choice of taps


def test_it_reads_ahead_but_not_away():
  drawn = []

  def batches():
    for i in range(100):
      drawn.append(i)
      yield np.full((8, 4, 4, 1), i, np.uint8)

  for i, found in enumerate(means().stream(batches(), ("features",))):
    np.testing.assert_allclose(found["features"], 2 * (i / 127.5 - 1), atol=1e-6)
    assert len(drawn) <= i + 6
  assert i == 99


def test_what_goes_wrong_in_reading_arrives():
  def batches():
    yield np.zeros((8, 4, 4, 1), np.uint8)
    raise UserError("the third image is damaged")

  with pytest.raises(UserError, match="third"):
    means().features(batches())
  assert list(early(iter(range(7)))) == list(range(7))


def test_images_of_several_sizes_want_a_resize():
  with pytest.raises(UserError, match="several sizes"):
    means().features([np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 5, 4, 1), np.uint8)])


FOUR = """
import sys, jax, numpy as np
sys.path.insert(0, "tests/nets")
from test_inception import expected, means
from jaxgen.evaluation.features import batch_size
assert jax.local_device_count() == 4 and batch_size(10) == 8
x = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 1)).astype(np.uint8)
e = means()
np.testing.assert_allclose(e.features([x])["features"], expected(x), atol=1e-6)
(_, first), *_ = e._on_devices(iter([x]))
assert len(first.sharding.device_set) == 4
assert first.addressable_shards[0].data.shape[0] == 2
"""


def test_every_device_looks_at_its_share():
  root = pathlib.Path(__file__).parents[2]
  subprocess.run(
    [sys.executable, "-c", FOUR],
    check=True,
    timeout=200,
    cwd=root,
    env=os.environ | {"XLA_FLAGS": xla.devices(4)},
  )
  assert batch_size(10) == 10 and batch_size(None) == 16


def test_cards_are_json(of):
  card = of("clean").card
  assert json.loads(json.dumps(card))["resize"] == "clean"
