"""GAN-Control: the published code's pairs, losses and nets; both phases as games."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN, draws, near, scaled

from jaxgen import config
from jaxgen.adversarial import contrastive, predictors
from jaxgen.adversarial.attribute_pairs import fixed_pairs, random_pairs, share_slice
from jaxgen.config import build
from jaxgen.keys import example_keys
from jaxgen.nets.split_mapping import AttributeEncoder, SplitMapping

KEY = jax.random.key(0)
CASE = dict(np.load(GOLDEN / "gan_control.npz"))
MANIFEST = json.loads(str(CASE["manifest"]))
DISTANCES = {"embedding": contrastive.sum_of_squares}


def stacks(entries, seed, first):
  """Their linear layers "part.number.weight" by the rule and the note -> our parameters."""
  params = {}
  for name, z, _ in draws(seed, entries):
    part, number, kind = name.split(".")
    # The weights are multiplied by 100 times what the rule divides them by.
    z = 100 * np.sqrt(np.prod(z.shape[1:])) * scaled(z) if z.ndim > 1 else 0.1 * z
    layer = params.setdefault(part, {}).setdefault(f"fc{int(number) - first}", {})
    layer["kernel" if kind == "weight" else "bias"] = jnp.asarray(z.T)
  return {"params": params}


def pairs_of(group):
  size = len(CASE["z"])
  return sum(fixed_pairs(size, place) for place in MANIFEST["places_in_batch"][group]) > 0


def test_slices_are_mapped_each_by_its_own_net():
  groups = MANIFEST["groups"]
  net = SplitMapping(
    tuple(groups), tuple(b - a for a, b in groups.values()), MANIFEST["mid_dim"], MANIFEST["n_mlp"]
  )
  params = stacks(MANIFEST["state_dict"], MANIFEST["seed"], 1)
  near(net.apply(params, jnp.asarray(CASE["z_paired"])), CASE["w"])


def test_pairs_of_a_batch_share_slices():
  z = jnp.asarray(CASE["z"])
  for group, (start, stop) in MANIFEST["groups"].items():
    z = share_slice(z, pairs_of(group), start, stop)
  np.testing.assert_array_equal(z, CASE["z_paired"])


@pytest.mark.parametrize("name", list(MANIFEST["contrastive"]))
def test_losses_of_pairs_and_their_slopes(name):
  spec = MANIFEST["contrastive"][name]
  distance = DISTANCES.get(name, contrastive.mean_absolute)
  features = jnp.asarray(CASE[f"{name}_features"])
  near(distance(features), CASE[f"{name}_distances"], 1e-5)

  def loss(a):
    terms = contrastive.contrast(distance(a), pairs_of(spec["group"]), spec["lower"], spec["upper"])
    return spec["weight"] * sum(terms)

  value, slope = jax.value_and_grad(loss)(features)
  np.testing.assert_allclose(value, CASE[f"{name}_loss"], rtol=1e-5)
  near(slope, CASE[f"{name}_grad"], 1e-4)


def test_encoders_read_values_as_they_are():
  c = MANIFEST["controller"]
  net = AttributeEncoder(("fc_stack",), (c["out_dim"],), c["mid_dim"], c["n_mlp"])
  params = stacks(MANIFEST["controller_state_dict"], MANIFEST["controller_seed"], 0)
  out = net.apply(params, {"fc_stack": jnp.asarray(CASE["attribute"])})
  near(out["fc_stack"], CASE["controller_w"], 1e-4)


def test_hair_is_compared_where_there_is_hair():
  a = jnp.array([[0.2, 0.4, 0.5], [0.4, 0.8, 0.011], [1.0, 1.0, 0.01]])
  want = [[0, 0.3, 0], [0.3, 0, 0], [0, 0, 0]]
  np.testing.assert_allclose(contrastive.mean_absolute_of_parts(a), want, atol=1e-6)


def test_numbers_and_places_of_pairs_are_alike_probable():
  """Of 16 places 2, 4 .. 12 are drawn: as often each, and each place as often."""
  draw = jax.jit(jax.vmap(lambda key: random_pairs(key, 16, (2, 12))))
  table = np.asarray(draw(jax.random.split(KEY, 6000)))
  counts = np.bincount(table.sum(1), minlength=9) / len(table)
  np.testing.assert_allclose(counts[1:7], 1 / 6, atol=0.02)
  assert not counts[[0, 7, 8]].any()
  np.testing.assert_allclose(table.mean(0), 3.5 / 8, atol=0.02)
  assert fixed_pairs(16, (4, 8)).tolist() == [False] * 2 + [True] * 2 + [False] * 4


@pytest.mark.parametrize(
  "call, says",
  [
    (lambda: fixed_pairs(8, (1, 4)), "places 1 to 4 of a batch of 8"),
    (lambda: fixed_pairs(8, (4, 10)), "places 4 to 10"),
    (lambda: random_pairs(KEY, 10, (2, 12)), "2 to 12 places of a batch of 10"),
  ],
)
def test_places_fit_a_batch(call, says):
  with pytest.raises(ValueError, match=says):
    call()


def bar(width, height, size=16):
  x = np.full((1, size, size, 1), -1.0, np.float32)
  top, left = (size - height) // 2, (size - width) // 2
  x[:, top : top + height, left : left + width] = 1
  return jnp.asarray(x)


def test_strokes_are_measured_as_they_were_drawn():
  """A bar of w x h is w h / (w + h) thick (but for a corner), however bright."""
  for w, h in ((1, 10), (2, 10), (3, 12)):
    corner = 2 - 2**0.5  # of one of four corners both differences are one gradient
    want = 2 * w * h / (2 * (w + h) - corner)
    for x in (bar(w, h), bar(w, h) / 2 - 0.5):
      np.testing.assert_allclose(predictors.thickness(x), [[want]], rtol=1e-4)
  upright = np.asarray(bar(2, 12))
  np.testing.assert_allclose(predictors.slant(upright), [[0.0]], atol=1e-6)
  sheared = np.stack([np.roll(row, (8 - i) // 2, 0) for i, row in enumerate(upright[0])])[None]
  assert 0.4 < predictors.slant(jnp.asarray(sheared))[0, 0] < 0.6
  mirrored = jnp.asarray(sheared[:, :, ::-1])
  np.testing.assert_allclose(predictors.slant(mirrored), -predictors.slant(sheared), rtol=1e-4)


def test_colours_and_contrasts_of_a_board():
  x = np.zeros((2, 4, 4, 3), np.float32)
  x[0, ::2], x[1] = (1.0, -1.0, 0.5), (0.25, 0.5, -0.5)
  np.testing.assert_allclose(predictors.colour(x), [[0.5, -0.5, 0.25], [0.25, 0.5, -0.5]])
  luma = 0.299 * 0.5 - 0.587 * 0.5 + 0.114 * 0.25
  np.testing.assert_allclose(predictors.contrast(x), [[abs(luma) / 2], [0]], atol=2e-6)
  slopes = jax.grad(lambda x: jnp.sum(predictors.slant(x) + predictors.thickness(x)))(x * 0 - 1)
  assert np.isfinite(slopes).all()  # also of an image without ink


def test_published_sizes():
  c = config.load("configs/gan_control.py:ffhq")
  model = build(c.model)
  x = {"x": jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)}
  params, _ = jax.eval_shape(model.init, x, KEY)
  sizes = {g: sum(a.size for a in jax.tree.leaves(p)) for g, p in params.items()}
  # Its code's formula: 28,175,335 of the synthesis and 3,027,712 of the slices.
  assert sizes == {"gen": 31_203_047, "disc": 28_982_849}
  assert [(n, b - a) for n, (a, b) in model.slices.items()][0] == ("id", 128)
  assert [p.every for p in model.players] == [1, 16, 1, 4] and model.path.weight == 2
  pairs = model.pairs(example_keys(KEY, 16))
  assert [int(p.sum()) for p in pairs.values()] == [2, 1, 1, 1, 1, 1, 1]
  assert sum(pairs.values()).tolist() == [1] * 8  # places fill the batch
  encoder = build(config.load("configs/gan_control.py:ffhq-encoder").model)
  assert encoder.net.hidden == 512 and encoder.net.layers == 4 and not encoder.standardise
