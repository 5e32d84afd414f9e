"""Augmentation: what each transform does, against numpy, scipy and formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from scipy import ndimage

from jaxgen.adversarial import color, diffaugment, warp
from jaxgen.adversarial.ada import ADA, ALL, pipeline
from jaxgen.adversarial.diffaugment import DiffAugment

N = 200
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (8, 8, 3)).astype(np.float32)
MANY = jnp.repeat(X[None], N, 0)
KEYS = jax.random.split(jax.random.key(1), N)
OFF = dict.fromkeys(ALL, 0.0)
# One program for all tests, whatever is drawn.
run = jit(jax.vmap(pipeline, (0, 0, None)))


def only(*names, p=1.0, x=MANY):
  """Images after some transforms alone."""
  p = {n: jnp.float32(v) for n, v in (OFF | dict.fromkeys(names, p)).items()}
  return np.asarray(run(x, KEYS, p))


def kinds(images):
  return {np.asarray(x).tobytes() for x in images}


def test_nothing_drawn_changes_no_bit():
  for x in (MANY, 1e-3 * MANY):
    assert only(x=x).tobytes() == np.asarray(x).tobytes()
  # Where something is drawn for few, the others are left to the bit; 12
  # transforms, some of which are idle for a part of those.
  same = (only(*ALL, p=0.02) == MANY).all((1, 2, 3)).mean()
  assert 0.98**12 - 0.1 < same < 1


def test_ada_is_its_pipeline():
  ada = ADA(contrast=0.5, hue=0.0, scale=0.0)
  p = OFF | dict.fromkeys(ALL, 0.8) | dict(contrast=0.4, hue=0.0, scale=0.0)
  p = {k: jnp.float32(v) for k, v in p.items()}
  got = jit(ada.__call__)(MANY, KEYS, ada.init() | {"p": jnp.float32(0.8)})
  np.testing.assert_allclose(got, run(MANY, KEYS, p), atol=1e-5)
  assert np.abs(got - MANY).mean() > 0.2
  blits = dict(xflip=1.0, rotate90=1.0, xint=1.0)
  ada = ADA(**OFF | blits, p=1.0)  # a smaller program
  got = jit(ada.__call__)(MANY, KEYS, ada.init())
  assert np.asarray(got).tobytes() == only(*blits).tobytes()


def test_flips_and_right_angles_and_whole_shifts_are_exact():
  got = only("xflip")
  assert kinds(got) == kinds([X, X[:, ::-1]])
  share = (got == X).all((1, 2, 3)).mean()
  assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(N)
  assert kinds(only("rotate90")) == kinds(np.rot90(X, i) for i in range(4))
  # One pixel of eight, each way; beyond its edges an image is reflected.
  padded = np.pad(X, [(1, 1), (1, 1), (0, 0)], "reflect")
  shifts = [padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
  assert kinds(only("xint")) == kinds(shifts)
  assert kinds(only("xflip", "rotate90", "xint")) <= kinds(
    np.pad(np.rot90(x, i), [(1, 1), (1, 1), (0, 0)], "reflect")[a : a + 8, b : b + 8]
    for x in (X, X[:, ::-1])
    for i in range(4)
    for a in range(3)
    for b in range(3)
  )


def test_probabilities():
  p = 0.3
  changed = lambda *names: (only(*names, p=p) != X).any((1, 2, 3)).mean()
  off = 5 * np.sqrt(0.25 / N)
  # (Two rotations, but one chance: 1 - sqrt(1 - p) for each.)
  rare = dict(xflip=p / 2, rotate90=0.75 * p, xint=p * 8 / 9, lumaflip=p / 2, rotate=1 - (1 - p))
  for name in ALL:
    assert abs(changed(name) - rare.get(name, p)) < off, name


N_SMOOTH = 24


def waves(x, y):
  return np.cos(0.5 * x + 0.3 * y) + np.sin(0.2 * x - 0.4 * y)


def grid(n):
  u = np.arange(n) - (n - 1) / 2
  y, x = np.meshgrid(u, u, indexing="ij")
  return x, y


INVERSE = {
  "turn": [[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0]],
  "shrink": [[1.4, 0, 0], [0, 1.4, 0]],
  "aspect": [[1.2, 0, 0], [0, 1 / 1.2, 0]],
  "far": [[1, 0, 9.3], [0, 1, -30.6]],
  "all": [[0.8, 0.4, 1.3], [-0.5, 1.1, -0.4]],
}


@pytest.mark.parametrize("name", INVERSE)
def test_warps_are_the_image_elsewhere(name):
  M = np.array([*INVERSE[name], [0, 0, 1]])
  x, y = grid(N_SMOOTH)
  got = jit(warp.resample)(jnp.float32(waves(x, y))[..., None], jnp.float32(M))[..., 0]
  u, v = (M[i, 0] * x + M[i, 1] * y + M[i, 2] for i in (0, 1))
  middle = (N_SMOOTH - 1) / 2
  # Beyond the edges scipy's "mirror" goes on like ours.
  spline = ndimage.map_coordinates(waves(x, y), [v + middle, u + middle], order=5, mode="mirror")
  # Where a reflection has a kink, filters differ from splines.
  np.testing.assert_allclose(got, spline, atol=0.1)
  assert np.abs(got - spline).mean() < 0.025
  if name != "far":
    inside = np.maximum(np.abs(u), np.abs(v)) < middle - 4
    np.testing.assert_allclose(np.asarray(got)[inside], waves(u, v)[inside], atol=0.015)


def test_no_aliases_where_images_shrink():
  # The finest stripes there are, made smaller: gray, not a wave of some kind.
  stripes = jnp.float32(np.where(np.arange(32) % 2, 1.0, -1.0))
  x = jnp.broadcast_to(stripes[None, :, None], (32, 32, 1))
  M = jnp.diag(jnp.array([1.5, 1.5, 1.0]))
  got = jit(warp.resample)(x, M)
  naive = jit(warp.gather)(x, M)
  assert np.abs(got)[4:-4, 4:-4].max() < 0.2 < 0.9 < np.abs(naive).max()


def test_maps_are_composed_as_they_say():
  key = jax.random.key(0)
  shape, one = (16, 16, 3), dict.fromkeys(warp.GEOMETRY, 1.0)
  many = jax.random.split(key, 4000)
  maps = jit(jax.vmap(lambda k, chance: warp.geometry(k, chance, shape)[0], (0, None)))
  draw = lambda **chance: np.asarray(maps(many, OFF | chance), np.float64)
  scale = draw(scale=1.0)
  assert (scale[:, 0, 0] == scale[:, 1, 1]).all()
  octaves = np.log2(scale[:, 0, 0])
  assert abs(octaves.std() - 0.2) < 0.01 and abs(octaves.mean()) < 0.02
  aniso = draw(aniso=1.0)
  np.testing.assert_allclose(aniso[:, 0, 0] * aniso[:, 1, 1], 1, rtol=1e-5)
  move = draw(xfrac=1.0)[:, :2, 2]
  assert np.abs(move.std(0) - 0.125 * 16).max() < 0.1
  turn = draw(rotate=1.0)[:, :2, :2]
  np.testing.assert_allclose(turn @ turn.swapaxes(1, 2) - np.eye(2), 0, atol=1e-5)
  angle = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
  assert abs(np.mean(np.exp(1j * angle))) < 0.1  # all the way round
  # Areas: only the scale changes them.
  np.testing.assert_allclose(np.linalg.det(draw(**one)), np.linalg.det(scale), rtol=1e-4)


def test_colour_maps_are_what_they_are_called():
  keys = jax.random.split(jax.random.key(3), 50)
  linear = lambda f: np.asarray(jit(jax.vmap(f))(keys), np.float64)[:, :3, :3]
  gray, eye = np.full((3, 3), 1 / 3), np.eye(3)
  hue = linear(color.hue)
  np.testing.assert_allclose(hue @ hue.swapaxes(1, 2) - eye, 0, atol=1e-6)
  np.testing.assert_allclose(np.linalg.det(hue), 1, atol=1e-6)
  np.testing.assert_allclose(hue @ np.ones(3), 1, atol=1e-6)  # gray stays
  angle = np.arccos((np.trace(hue, axis1=1, axis2=2) - 1) / 2)
  assert angle.min() < 0.5 and angle.max() > 2.6
  flip = linear(color.lumaflip)
  flipped = np.abs(flip - eye).max((1, 2)) > 0.1
  assert 10 < flipped.sum() < 40
  np.testing.assert_allclose(flip[flipped] - (eye - 2 * gray), 0, atol=1e-6)
  s = linear(color.saturation)
  np.testing.assert_allclose(s @ np.ones(3), 1, atol=1e-6)
  np.testing.assert_allclose(  # twice the saturation: apart from gray, double
    (s - gray) @ (s - gray) - np.linalg.det(s)[:, None, None] ** 0.5 * (s - gray), 0, atol=1e-4
  )
  b = np.asarray(jit(jax.vmap(color.brightness))(keys))
  assert (b[:, :3, :3] == eye).all() and (b[:, 0, 3] == b[:, 2, 3]).all()
  assert abs(b[:, 0, 3].std() - 0.2) < 0.07
  c = linear(color.contrast)
  assert (c == c[:, :1, :1] * eye).all()


def test_colours_reach_images():
  y = only("brightness")
  np.testing.assert_allclose(np.ptp(y - X, axis=(1, 2, 3)), 0, atol=1e-6)
  y = only("saturation", "hue")
  np.testing.assert_allclose(y.mean(-1), MANY.mean(-1), atol=1e-5)
  # A gray image in three channels is what one channel is taken for.
  gray = MANY[..., :1]
  three = only("brightness", "contrast", "lumaflip", x=jnp.repeat(gray, 3, -1))
  one = only("brightness", "contrast", "lumaflip", x=gray)
  np.testing.assert_allclose(three, jnp.repeat(one, 3, -1), atol=1e-5)
  assert only(*ALL, p=0.0, x=gray).tobytes() == np.asarray(gray).tobytes()


def test_every_example_draws_alone_and_slopes_pass():
  p = {n: jnp.float32(0.9) for n in ALL}
  full = run(MANY, KEYS, p)
  assert len(kinds(full)) == N
  order = RNG.permutation(N)
  np.testing.assert_allclose(run(MANY, KEYS[order], p), full[order], atol=1e-6)
  # Affine in the image, so that <y, A x> = <A' y, x>.
  y = jnp.float32(RNG.normal(size=MANY.shape))

  def inner(x):
    return jnp.sum(y * jax.vmap(pipeline, (0, 0, None))(x, KEYS, p), (1, 2, 3))

  slope = jit(jax.grad(lambda x: jnp.sum(inner(x))))(MANY)
  there, zero = (
    jnp.sum(y * run(x, KEYS, p), (1, 2, 3)) for x in (MANY, 0 * MANY)
  )  # zero: of brightness
  np.testing.assert_allclose(jnp.sum(slope * MANY, (1, 2, 3)), there - zero, atol=1e-2)
  assert (jnp.abs(slope).sum((1, 2, 3)) > 0).all()


def test_p_moves_by_the_formula():
  ada = ADA(target=0.6, every=4, kimg=0.5, p=0.2)
  update = jit(ada.update, static_argnums=3)
  stats, p, signs = ada.init(), 0.2, []
  for step in range(24):
    logits = RNG.normal(1.0 if step < 12 else -0.2, 1, 10)
    stats = update(stats, jnp.float32(logits), step, 10)
    signs += list(np.sign(logits))
    if step % 4 == 3:  # Karras et al. 2020b: 4 batches of 10 of 500 images
      p += np.sign(np.mean(signs) - 0.6) * 40 / 500
      signs = []
      assert stats["seen"] == stats["signs"] == 0
    np.testing.assert_allclose(stats["p"], np.clip(p, 0, 1), atol=1e-6)
  assert 0 <= p < 0.3
  for logit, end in ((9.0, 1.0), (-9.0, 0.0)):
    for step in range(60):
      stats = update(stats, jnp.full(10, logit), step, 10)
    assert stats["p"] == end
  # In parts it comes to the same.
  single = parts = ADA(kimg=0.5, p=0.5).init()
  for step in range(8):
    single = update(single, jnp.ones(10), step, 10)
    for _ in range(2):
      parts = update(parts, jnp.ones(5), step, 5)
  np.testing.assert_allclose(single["p"], parts["p"], atol=1e-6)
  assert single["p"] > 0.6


def test_what_ada_is_not_for():
  ada = ADA()
  with pytest.raises(ValueError, match="1 or 3"):
    ada(jnp.zeros((2, 2)), KEYS[:2], ada.init())
  with pytest.raises(ValueError, match="not square"):
    ada(jnp.zeros((2, 4, 8, 3)), KEYS[:2], ada.init())
  wide = ADA(rotate90=0.0, p=1.0)
  shape = jax.ShapeDtypeStruct((2, 4, 8, 3), jnp.float32)
  assert jax.eval_shape(wide, shape, KEYS[:2], wide.init()) == shape


def each(transform, **kw):
  return np.asarray(jit(jax.vmap(functools.partial(transform, **kw)))(MANY, KEYS))


def test_translations_are_shifts_into_black():
  padded = np.pad(X, [(2, 2), (2, 2), (0, 0)])
  assert kinds(each(diffaugment.translation, share=0.25)) == kinds(
    padded[i : i + 8, j : j + 8] for i in range(5) for j in range(5)
  )


def test_cutouts_are_boxes_of_half_the_size():
  places = set()
  for y in each(diffaugment.cutout):
    gone = (y == 0).all(-1)
    rows, cols = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
    assert gone.sum() == len(rows) * len(cols)
    assert np.ptp(rows) < 4 and np.ptp(cols) < 4  # narrower at the edges
    assert (y[~gone] == X[~gone]).all()
    places.add((rows[0], len(rows)))
  # Middles run over all rows and the edge beyond: clipped on either side.
  assert places == {(0, 2), (0, 3), *((i, 4) for i in range(5)), (5, 3), (6, 2)}


def test_diffaugment_colours_by_hand():
  for y, key in zip(each(diffaugment.color)[:5], KEYS[:5], strict=True):
    b, s, c = np.asarray(jax.random.uniform(key, (3,)), np.float64)
    x = X + b - 0.5
    gray = x.mean(-1, keepdims=True)
    x = gray + 2 * s * (x - gray)
    x = x.mean() + (c + 0.5) * (x - x.mean())
    np.testing.assert_allclose(y, x, atol=1e-5)


def test_diffaugment_is_all_of_them():
  augment = DiffAugment()
  assert augment.init() == augment.update({}, None, 0, 8) == {}
  both = DiffAugment((diffaugment.translation, diffaugment.cutout))
  y = np.asarray(jit(both.__call__)(MANY, KEYS, {}))
  assert len(kinds(y)) > N / 2 and ((y == 0).all(-1).sum((1, 2)) >= 4).all()
  slope = jit(jax.grad(lambda x: jnp.sum(augment(x, KEYS, {}) ** 2)))(MANY)
  assert (jnp.abs(slope).sum((1, 2, 3)) > 0).all()
