"""Averages of weights against closed forms and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN

from jaxgen import ema
from jaxgen.core import _toward
from jaxgen.errors import UserError

WIDTHS = [0.02, 0.05, 0.1, 0.2, 0.28]


def profile_weights(decay, n):
  """What update i = 1 .. n weighs in the average after n updates."""
  d = np.asarray(jax.vmap(decay)(jnp.arange(n)), np.float64)
  return (1 - d) * np.append(np.cumprod(d[::-1])[::-1][1:], 1)


def test_an_impulse_halves_after_a_half_life():
  batch, images = 32, 3200
  decay = ema.half_life(images, None, batch=batch)
  average = {"a": jnp.ones(())}  # then nothing but zeros for `images` images
  for i in range(images // batch):
    average = _toward(average, {"a": jnp.zeros(())}, decay(jnp.int32(i)))
  np.testing.assert_allclose(average["a"], 0.5, rtol=1e-5)


def test_half_life_weights_with_and_without_ramp():
  batch, images, n = 16, 800, 400
  d = 0.5 ** (batch / images)
  weights = profile_weights(ema.half_life(images, None, batch=batch), n)
  age = np.arange(n)[::-1]
  np.testing.assert_allclose(weights, (1 - d) * d**age, rtol=1e-4)
  # With the ramp the half-life is a share of what was seen, until it is H.
  decay = jax.vmap(ema.half_life(images, 0.1, batch=batch))(jnp.arange(n + 200))
  seen = np.arange(n + 200) * batch
  life = np.minimum(images, 0.1 * np.maximum(seen, 1e-30))
  np.testing.assert_allclose(decay, 0.5 ** (batch / life), rtol=1e-5)
  assert decay[0] == 0  # the initial weights are forgotten
  assert decay[n + 199] == pytest.approx(d) and decay[400] < d


@pytest.mark.parametrize("width", WIDTHS)
def test_power_weights_are_those_of_the_power_function(width):
  n, gamma = 1000, ema.width_to_gamma(width)
  weights = profile_weights(ema.power(width, batch=8), n)
  # The integral of (gamma + 1) t^gamma / n^(gamma + 1) over (i - 1, i).
  edges = (np.arange(n + 1) / n) ** (gamma + 1)
  np.testing.assert_allclose(weights, np.diff(edges), rtol=1e-3, atol=1e-8)
  assert weights.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("step", [10**5, 10**6, 10**7])
def test_power_is_accurate_late_in_training(step):
  exponent = ema.width_to_gamma(0.05) + 1
  rate = 1 - np.float64(ema.power(0.05, batch=8)(jnp.int32(step)))
  exact = -np.expm1(exponent * np.log1p(-1 / (step + 1)))
  # float32 holds 1 - rate to 3e-8; anything beyond is ours.
  np.testing.assert_allclose(rate, exact, rtol=0.001, atol=4e-8)


@pytest.mark.parametrize("width", WIDTHS)
def test_gamma_gives_the_width_by_quadrature(width):
  gamma = ema.width_to_gamma(width)
  t, w = np.polynomial.legendre.leggauss(400)
  t, w = (t + 1) / 2, w / 2 * ((t + 1) / 2) ** gamma
  mean = np.sum(w * t) / np.sum(w)
  std = np.sqrt(np.sum(w * (t - mean) ** 2) / np.sum(w))
  assert std == pytest.approx(width, rel=1e-6)
  assert gamma >= 0


@pytest.mark.parametrize("width", [0, -1, 0.2887, 1, float("nan")])
def test_impossible_widths(width):
  with pytest.raises(UserError, match="width"):
    ema.width_to_gamma(width)


def test_published_gammas():
  # Karras et al. 2024, Sec. 3.1: 0.05 and 0.10 mean 16.97 and 6.94.
  assert ema.width_to_gamma(0.05) == pytest.approx(16.97, abs=0.005)
  assert ema.width_to_gamma(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("a", [(1.0, 3.0), (0.4, 17.0)])
@pytest.mark.parametrize("b", [(1.0, 3.0), (0.7, 0.5), (2.0, 6.9)])
def test_overlap_by_quadrature(a, b):
  def p(t, end, gamma):
    return np.where(t <= end, (gamma + 1) / end * (t / end) ** gamma, 0)

  x, w = np.polynomial.legendre.leggauss(200)
  end = min(a[0], b[0])
  t, w = end * (x + 1) / 2, end * w / 2
  expected = np.sum(w * p(t, *a) * p(t, *b))
  got = ema.overlap(*(np.float64(v) for v in (*a, *b)))
  assert got == pytest.approx(expected, rel=1e-8)
  assert got == pytest.approx(ema.overlap(*(np.float64(v) for v in (*b, *a))), rel=1e-12)


def trajectory(t):
  """A made-up weight over time, [len(t), 3]: a drift, a wave, a constant."""
  return np.stack([np.sqrt(t), np.sin(t / 300), np.ones_like(t)], -1)


def snapshots(times, widths):
  """Power averages of `trajectory`, weighed in closed form: float64."""
  kept = {}
  for n in times:
    for width in widths:
      edges = (np.arange(n + 1) / n) ** (ema.width_to_gamma(width) + 1)
      kept[n, width] = {"w": np.diff(edges) @ trajectory(np.arange(1, n + 1.0))}
  return kept


def test_combine_gives_back_what_was_stored():
  stored = snapshots(range(100, 1001, 100), (0.05, 0.1))
  for width in (0.05, 0.1):
    back = ema.combine(stored, width)
    np.testing.assert_allclose(back["w"], stored[1000, width]["w"], rtol=1e-5)


@pytest.mark.parametrize("width", [0.06, 0.075, 0.12, 0.15])
def test_combine_makes_a_width_that_was_never_stored(width):
  stored = snapshots(range(50, 1001, 50), (0.05, 0.1))
  wanted = snapshots([1000], [width])[1000, width]["w"]
  made = ema.combine(stored, width)["w"]
  np.testing.assert_allclose(made, wanted, rtol=2e-3)
  assert made[2] == pytest.approx(1, abs=1e-9)  # constants are kept
  nearest = [stored[1000, w]["w"] for w in (0.05, 0.1)]
  for other in nearest:
    assert np.abs(made - wanted)[1] < np.abs(other - wanted)[1] / 5
  assert ema.combination(list(stored), width).sum() == pytest.approx(1)


def test_combine_keeps_float32_and_shape():
  stored = {k: jax.tree.map(np.float32, v) for k, v in snapshots((500, 1000), (0.05, 0.1)).items()}
  made = ema.combine(stored, 0.07)["w"]
  assert made.dtype == np.float32 and made.shape == (3,)


def test_power_functions_are_the_published_codes():
  g = np.load(GOLDEN / "edm2.npz")
  gammas = [ema.width_to_gamma(width) for width in g["phema_std"]]
  np.testing.assert_allclose(gammas, g["phema_std_to_exp"], rtol=1e-12)
  # Its time is in images, at the end of an update of 2048; the first one copies.
  updates = g["phema_beta_at"] // 2048 - 1
  decays = [[ema.power(w, batch=2048)(jnp.int32(i)) for w in g["phema_std"]] for i in updates]
  np.testing.assert_allclose(decays, g["phema_beta"], rtol=2e-6)
  assert not np.any(decays[0])


def test_reconstructed_averages_are_the_published_codes():
  g = np.load(GOLDEN / "edm2.npz")
  t, widths = g["phema_in_offset"], g["phema_in_std"]
  gamma = np.array([ema.width_to_gamma(w) for w in widths])
  overlaps = ema.overlap(t[:, None], gamma[:, None], t[None], gamma[None])
  np.testing.assert_allclose(overlaps, g["phema_correlation"], rtol=1e-12)
  stored = {(int(n), w): np.eye(8)[i] for i, (n, w) in enumerate(zip(t, widths, strict=True))}
  for width, want in zip(g["phema_out_std"], g["phema_coefficients"].T, strict=True):
    np.testing.assert_allclose(ema.combine(stored, width), want, atol=1e-12)
