"""Inverse problems of a Gaussian, whose posterior is known: which methods reach it.

Operators and degradations are tested here too.
"""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from scipy import ndimage, stats

from jaxgen.data.photos import open_photos
from jaxgen.diffusion import degrade, inverse, linear, samplers, times
from jaxgen.diffusion.process import VP, Noise

S, STD, DRAWS, STEPS = 4, 0.5, 3000, 30
SHAPE = (S, S, 1)
NOISE = 0.05  # of the blurred measurement
KEEP = degrade.centre(S, S)


def covariance(length):
  """Of pixels, [S^2, S^2], which depend on each other over so many pixels; 0: not."""
  at = np.stack(np.meshgrid(range(S), range(S)), -1).reshape(-1, 2)
  distance = np.linalg.norm(at[:, None] - at, axis=-1)
  return STD**2 * (np.exp(-distance / length) if length else np.eye(S * S))


MEAN = np.linspace(-0.3, 0.4, S * S)
PROBLEMS = {  # operator, deviation of the noise of what is measured
  "inpainting": (linear.mask(KEEP), 0.0),
  "deblurring": (linear.blur(SHAPE, 0.7), NOISE),
}


def matrix(A):
  """The operator's, [M, S^2]."""
  columns = A.apply(jnp.eye(S * S, dtype=jnp.float32).reshape(-1, *SHAPE))
  return np.asarray(columns, float).reshape(S * S, -1).T


def posterior(A, y, noise, C):
  """Mean and covariance of x given y, by Bayes' rule."""
  M = matrix(A)
  gain = C @ M.T @ np.linalg.pinv(M @ C @ M.T + noise**2 * np.eye(len(M)), 1e-9, hermitian=True)
  return MEAN + gain @ (np.ravel(y) - M @ MEAN), C - gain @ M @ C


def exact(values, vectors):
  """E[x_0 | x_t] of N(MEAN, C), by what `eigh` says of C."""

  def denoise(x_t, t):
    rest = (x_t.reshape(len(x_t), -1) - t.alpha * MEAN.astype(np.float32)) @ vectors
    rest *= t.alpha * values / (t.alpha**2 * values + t.sigma**2)
    return (MEAN.astype(np.float32) + rest @ vectors.T).reshape(x_t.shape)

  return denoise


def eigh(C):
  return [a.astype(np.float32) for a in np.linalg.eigh(C)]


def off(x, mean, C):
  """Of draws, against the true posterior: distance of means in deviations, variances over."""
  x, deviation = np.asarray(x, float).reshape(DRAWS, -1), np.sqrt(np.diag(C))
  free = deviation > 1e-3  # not the pixels that are known
  gap = (x.mean(0) - mean)[free] / deviation[free]
  return np.sqrt(np.mean(gap**2)), x.var(0)[free].sum() / np.diag(C)[free].sum()


def dense(M, values, vectors):
  """The operator of a matrix M and of `eigh` of M M', all of which may be traced."""
  flat = lambda x: x.reshape(len(x), -1)
  image = lambda f: f.reshape(len(f), *SHAPE)

  def solve(b, a, c):
    divisor = a * values + c
    v = flat(b) @ vectors / jnp.where(divisor > linear.LEAST, divisor, jnp.inf)
    return image(v @ vectors.T)

  return linear.Linear(lambda x: image(flat(x) @ M.T), lambda y: image(flat(y) @ M), solve)


@jax.jit
def drawn(y, noise, A, C):
  """y, its deviation, the operator's `dense`, C's `eigh` -> {method: draws}: for all problems."""
  path = VP()(times.karras(VP(), jnp.arange(STEPS), STEPS))
  key, D, A = jax.random.split(jax.random.key(0), DRAWS), exact(*C), dense(*A)
  methods = {
    "replacement": inverse.replacement(D, A, y, noise),
    "dps": inverse.dps(D, A, y, 0.2, inverse.following(path, STEPS)),
    "reconstruction": inverse.reconstruction(D, A, y, 1.0),
    "pseudoinverse": inverse.pseudoinverse(D, A, y, noise, STD),
    "moments": inverse.moments(D, A, y, jnp.maximum(noise, 1e-3), 16),
  }
  x_T = samplers.initial(path, key, SHAPE)
  return {k: samplers.heun(D_y, x_T, path, STEPS, key) for k, D_y in methods.items()}


def solved(problem, length):
  """{method: (how far the mean is off, variance over the true one)}."""
  (A, noise), C, rng = PROBLEMS[problem], covariance(length), np.random.default_rng(0)
  x = (MEAN + np.linalg.cholesky(C) @ rng.standard_normal(S * S)).reshape(1, *SHAPE)
  y = A.apply(jnp.asarray(x, jnp.float32)) + noise * rng.standard_normal((1, *SHAPE))
  M, truth = matrix(A), posterior(A, y, noise, C)
  draws = drawn(jnp.float32(y), noise, [np.float32(M), *eigh(M @ M.T)], eigh(C))
  return {k: off(v, *truth) for k, v in draws.items()}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_who_reaches_the_posterior_of_pixels_that_depend_on_each_other(problem):
  """A standard error of means is 0.02 deviations, of a variance about 0.03."""
  results = solved(problem, length=2.0)
  gap, ratio = results.pop("moments")
  assert gap < 0.05 and abs(ratio - 1) < 0.06
  for method, (gap, ratio) in results.items():
    assert gap > 0.15 or abs(ratio - 1) > 0.3, method  # none of the others


def test_who_reaches_the_posterior_of_independent_pixels():
  results = solved("deblurring", length=0.0)
  for method, (gap, ratio) in results.items():
    if method in ("moments", "pseudoinverse"):
      assert gap < 0.06 and abs(ratio - 1) < 0.06, method
    else:
      assert gap > 0.15 or abs(ratio - 1) > 0.3, method


def test_dps_is_the_authors_step_of_ddpm():
  """x_s of DDPM less zeta times the slope of the distance, at the next point and the last."""
  A, D, rng = linear.mask(KEEP), exact(*eigh(covariance(2.0))), np.random.default_rng(0)
  path = VP()(jnp.array([0.6, 0.5]))
  key = jax.random.split(jax.random.key(0), 3)
  x_T, y = (jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32) for _ in range(2))
  zeta, y = 0.7, KEEP * y
  guided = inverse.dps(D, A, y, zeta, inverse.following(path, 2))

  def slope(x, t):
    distance = lambda x: jnp.linalg.norm((y - KEEP * D(x, t)).reshape(len(x), -1), axis=1)
    return jax.grad(lambda x: jnp.sum(distance(x)))(x)

  t, s = (jax.tree.map(lambda a: a[i], path) for i in (0, 1))  # noqa: B023
  hold = lambda x, u: jnp.where(u.t == t.t, D(x, t), x)  # so that the second step does nothing
  move = lambda x, u: jnp.where(u.t == t.t, guided(x, t), x)
  plain, moved = (samplers.ancestral(f, x_T, path, 2, key) for f in (hold, move))
  np.testing.assert_allclose(moved, plain - zeta * slope(x_T, t), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(guided(x_T, s), D(x_T, s) - zeta * slope(x_T, s), atol=1e-5)


def test_nothing_divides_by_zero_where_nothing_of_x_is_left():
  t = Noise(*(jnp.float32(v) for v in (1.0, 0.0, 1.0)))
  D, A = exact(*eigh(covariance(2.0))), linear.mask(KEEP)
  x, y = jnp.ones((2, *SHAPE)), KEEP * jnp.ones((2, *SHAPE))
  for f in (inverse.pseudoinverse(D, A, y), inverse.moments(D, A, y), inverse.replacement(D, A, y)):
    assert np.isfinite(f(x, t)).all()


OPERATORS = {
  "mask": linear.mask(degrade.centre(6, 8)),
  "downsample": linear.downsample((6, 8, 3), 2),
  "grey": linear.grey(),
  "blur": linear.blur((6, 8, 3), 1.3),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_have_their_adjoint_and_solve(name):
  A, rng = OPERATORS[name], np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 6, 8, 3)), jnp.float32)
  y = A.apply(x)
  v = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)
  np.testing.assert_allclose(jnp.vdot(v, y), jnp.vdot(A.adjoint(v), x), rtol=1e-4)
  solution = A.solve(v, 0.7, 0.02)
  back = 0.7 * A.apply(A.adjoint(solution)) + 0.02 * solution
  np.testing.assert_allclose(back, v, atol=2e-4)
  if name != "blur":  # which forgets what is fine
    np.testing.assert_allclose(A.apply(A.inverse(y)), y, atol=1e-5)


def test_operators_refuse_what_does_not_divide():
  with pytest.raises(ValueError, match="6x8 cannot be cut into boxes of 4x4"):
    linear.downsample((6, 8, 3), 4)


@pytest.fixture(scope="module")
def photo():
  return open_photos("train", 48, 3).read(np.arange(3))["x"][2, :, :40]


def unit(x):
  return jnp.asarray(x[None].astype(np.float32) / 127.5 - 1)


@pytest.mark.parametrize("quality, subsample", [(5, 1), (30, 2)])
def test_jpeg_is_what_pillow_writes(photo, quality, subsample):
  """But for the rounding of whole-number cosines: which decides a tie now and then."""
  file = io.BytesIO()
  PIL.Image.fromarray(photo).save(file, "JPEG", quality=quality, subsampling=2 * (subsample - 1))
  theirs = np.asarray(PIL.Image.open(file), float)
  run = jax.jit(degrade.jpeg, static_argnums=2)
  ours = 127.5 * (np.asarray(run(unit(photo), quality, subsample))[0] + 1)
  error, loss = np.abs(ours - theirs).mean(), np.abs(photo - theirs).mean()
  assert error < 0.1 * loss


def test_a_quality_is_drawn_for_each_image(photo):
  """Pillow's file of no other quality is nearer; all of them come, about as often."""

  def pillow(quality):
    file = io.BytesIO()
    PIL.Image.fromarray(photo).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(PIL.Image.open(file), float)

  theirs = np.stack([pillow(q) for q in range(3, 9)])
  draw = jax.jit(functools.partial(degrade.jpegs, lo=4.0, hi=7.0))
  keys = jax.random.split(jax.random.key(0), 64)
  ours = 127.5 * (np.asarray(draw(keys, unit(photo).repeat(64, 0))) + 1)
  apart = np.abs(ours[:, None] - theirs).mean((2, 3, 4))
  counts = np.bincount(3 + apart.argmin(1), minlength=9)
  assert counts[:4].sum() == counts[8] == 0
  assert stats.chisquare(counts[4:8]).pvalue > 0.01
  assert apart.min(1).max() < 0.2 * np.sort(apart, 1)[:, 1].min()
  alone = 127.5 * (np.asarray(draw(keys[:1], unit(photo)))[0] + 1)
  np.testing.assert_allclose(alone, ours[0], atol=1e-3)


def test_blur_is_a_gaussian_with_mirrored_edges(photo):
  ours = degrade.blur(unit(photo), 2.0)[0, ..., 1]
  theirs = ndimage.gaussian_filter(unit(photo)[0, ..., 1].astype(float), 2.0, truncate=8)
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_edges_are_black_where_brightness_steps():
  step = jnp.where(jnp.arange(8) < 4, -1.0, 1.0)[None, :, None, None] * jnp.ones((1, 8, 6, 3))
  lines = np.asarray(degrade.edges(step))[0, :, 2, 0]
  np.testing.assert_allclose(lines, [1, 1, 1, -1, -1, 1, 1, 1], atol=1e-4)
  slope = jax.grad(lambda x: degrade.edges(x).sum())(jnp.zeros((1, 8, 8, 3)))
  assert np.isfinite(slope).all()


def test_masks_leave_out_a_box():
  keep = np.asarray(degrade.boxes(jax.random.split(jax.random.key(0), 20), 16, 12, 0.25, 0.5))
  for inside in 1 - keep[..., 0]:
    rows, columns = inside.max(1), inside.max(0)
    np.testing.assert_array_equal(inside, np.outer(rows, columns))
    assert 4 <= rows.sum() <= 8 and 3 <= columns.sum() <= 6
  assert degrade.centre(4, 4)[0, ..., 0].tolist()[1] == [1, 0, 0, 1]
  x = jnp.full((1, 4, 4, 3), 0.5)
  assert degrade.mask(x, KEEP, fill=-1.0)[0, 1, 0].tolist() == [0.5] * 3
  assert degrade.mask(x, KEEP, fill=-1.0)[0, 1, 1].tolist() == [-1] * 3
