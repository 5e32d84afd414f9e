"""Draws have their law; paths are the published rules, for every n."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen.diffusion import precond, samplers, times
from jaxgen.diffusion.process import DDPM, EDM, VP, Cosine, Flow, Linear, Noise


@pytest.mark.parametrize(
  "draw, law",
  [
    (times.uniform, scipy.stats.uniform(1e-3, 1 - 1e-3).cdf),
    (times.lognormal, lambda t: scipy.stats.norm.cdf((np.log(t) + 1.2) / 1.2)),
    (times.logit_normal, lambda t: scipy.stats.norm.cdf(np.log(t / (1 - t)))),
  ],
)
def test_draws_have_their_law(draw, law):
  keys = jax.random.split(jax.random.key(1), 4000)
  t = draw(keys, 4)
  assert t.shape == (4000, 1, 1, 1)
  assert scipy.stats.kstest(np.ravel(t), law).pvalue > 0.01
  np.testing.assert_array_equal(draw(keys[7:9], 2)[:, 0], np.ravel(t)[7:9])


def test_grid_draws_every_step_alike():
  keys = jax.random.split(jax.random.key(1), 5000)
  index = np.asarray(times.grid(keys, 2, steps=10) * 10).round().ravel()
  counts = np.bincount(index.astype(int), minlength=11)
  assert counts[0] == 0 and len(counts) == 11
  assert scipy.stats.chisquare(counts[1:]).pvalue > 0.01


def published_every_kth(T, n):
  """The indices whose number is right under the smallest stride, or None."""
  for k in range(1, T):
    if len(range(0, T, k)) == n:
      return list(range(0, T, k))


def published_both_ends(T, n):
  stride, at, out = (T - 1) / (n - 1), 0.0, []
  for _ in range(n):
    out.append(round(at))
    at += stride
  return out


def published_quadratic(T, n):
  return [int(s) for s in np.linspace(0, np.sqrt(T * 0.8), n) ** 2]


@functools.cache
def rows_of_ldm(T):
  """By length; of what the code may be asked for, the most that makes so many."""
  rows = ([i + 1 for i in range(0, T, T // asked)] for asked in range(1, T // 2 + 1))
  # Some would read beyond the table's end, and fail there.
  return {len(row): row for row in rows if row[-1] < T}


def published_ldm(T, n):
  return rows_of_ldm(T).get(n)


def published_ldm_quadratic(T, n):
  return [i + 1 for i in published_quadratic(T, n)]


@pytest.mark.parametrize("process", [DDPM(), Linear(300)], ids=repr)
@pytest.mark.parametrize(
  "path, published",
  [
    (times.ddim, published_every_kth),
    (times.spaced, published_both_ends),
    (times.quadratic, published_quadratic),
    (times.ldm, published_ldm),
    (times.ldm_quadratic, published_ldm_quadratic),
  ],
)
def test_respacing_is_the_published_rule_for_every_n(path, published, process):
  T = process.steps
  ours = jax.jit(lambda n: path(process, jnp.arange(T), n))
  defined = 0
  for n in range(2, T + 1):
    want = published(T, n)
    index = np.asarray(precond.eps(Noise(ours(n), 1, 1), T)[3])
    if want is None:  # still a path: n falling indices
      assert np.all(np.diff(index[:n]) < 0) and 0 <= index[n - 1]
      continue
    defined += 1
    np.testing.assert_array_equal(index[:n][::-1], want, err_msg=str(n))
    assert np.all(index[n:] == index[n - 1])
  assert defined > 25


def test_famous_respacings():
  ddim25 = times.ddim(DDPM(), np.arange(25), 25) * 1000 - 1
  np.testing.assert_allclose(ddim25, np.arange(0, 1000, 40)[::-1], atol=1e-4)
  spaced = times.spaced(DDPM(), np.arange(250), 250) * 1000 - 1
  np.testing.assert_allclose(spaced[np.array([0, 1, -2, -1])], [999, 995, 4, 0], atol=1e-4)


def test_karras_is_edms_equation():
  with jax.enable_x64(True):
    for n in (2, 18, 256):
      i = np.arange(n)
      want = 80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))
      ours = times.karras(EDM(), jnp.arange(n), n)
      np.testing.assert_allclose(ours, want**7, rtol=1e-10)
      for process in (VP(), Flow(), Cosine()):
        path = process(times.karras(process, i, n, lo=0.02))
        r = times.karras(EDM(), i, n, lo=0.02)
        np.testing.assert_allclose(path.sigma / path.alpha, r, rtol=1e-6)


def published_sections(T, counts):
  """The rule for "10,15,20" in plain words, rounding as Python does."""
  size, extra = T // len(counts), T % len(counts)
  start, out = 0, []
  for section, n in enumerate(counts):
    length = size + (1 if section < extra else 0)
    at, stride = 0.0, (length - 1) / (n - 1) if n > 1 else 1
    for _ in range(n):
      out.append(start + round(at))
      at += stride
    start += length
  return sorted(set(out))


def indices(spacing, process):
  n = times.count(spacing, process.steps)
  t = jax.jit(lambda n: times.named(process, jnp.arange(n_max), n, spacing))
  n_max = n + 3
  index = np.asarray(precond.eps(Noise(t(n), 1, 1), process.steps)[3])
  assert np.all(index[n:] == index[n - 1])
  assert np.all(np.isnan(t(n - 1)))  # it would end in noise
  return list(index[:n][::-1])


@pytest.mark.parametrize("T", [1000, 4000, 50])
def test_named_spacings_are_the_published_rule(T):
  process = Linear(T)
  for counts in ([10, 10, 15, 20], [25], [3, 0, 7], [1, 5], [1], [12] * 3):
    spacing = ",".join(map(str, counts))
    if max(counts) > T // len(counts):
      with pytest.raises(ValueError, match="section of 12 steps"):
        times.count(spacing, T)
      continue
    assert indices(spacing, process) == published_sections(T, counts)
  for n in (2, 5, 10, 25, 50):
    want = published_every_kth(T, n)
    assert indices(f"ddim{n}", process) == want


def test_known_spacings():
  assert indices("ddim25", DDPM()) == list(range(0, 1000, 40))
  assert times.count("10,10,15,20") == 55 and times.count("250") == 250
  index = indices("250", DDPM())
  assert index[0] == 0 and index[-1] == 999
  assert index == published_both_ends(1000, 250)
  assert indices("1000", DDPM()) == list(range(1000))
  for wrong in ("ddim37", "ddim1", "ddim0", "ddim5,5"):
    with pytest.raises(ValueError, match="no whole stride|want one like"):
      times.count(wrong)
  for wrong in ("", "fast", "ddim", "10,", "-5", "0", "1001", "501,1"):
    with pytest.raises(ValueError, match="spacing"):
      times.named(DDPM(), jnp.arange(3), 3, wrong)


@pytest.mark.parametrize(
  "path", [times.even, times.karras, times.ddim, times.spaced, times.quadratic]
)
@pytest.mark.parametrize("process", [DDPM(), Cosine(), VP(), Flow()], ids=repr)
def test_paths_fall_and_stay_positive(path, process):
  for n in (1, 2, 10):
    t = np.asarray(path(process, jnp.arange(20), n))
    assert np.all(np.isfinite(t)) and np.all(t > 0)
    assert np.all(np.diff(t[:n]) < 0) and np.all(t[n:] == t[n - 1])
  one = path(process, jnp.arange(3), 1)[0]
  assert process(one).sigma / process(one).alpha > 79  # noise alone


def test_respacing_ends_where_the_process_does():
  all_50 = (50 - np.arange(50)) / 50
  for path in (times.ddim, times.spaced):
    t = np.asarray(path(DDPM(50), jnp.arange(80), 80))
    np.testing.assert_allclose(t[:50], all_50, rtol=1e-6)
    np.testing.assert_allclose(t[50:], 1 / 50, rtol=1e-6)


def test_even_visits_a_process_of_n_steps_whole():
  t = times.even(DDPM(), jnp.arange(1000), 1000)
  np.testing.assert_array_equal(precond.eps(DDPM()(t))[3], np.arange(1000)[::-1])


def test_initial_noise():
  path = EDM()(times.karras(EDM(), jnp.arange(4), 4))
  keys = jax.random.split(jax.random.key(0), 3000)
  x_T = np.ravel(samplers.initial(path, keys, (2,)))
  assert scipy.stats.kstest(x_T, scipy.stats.norm(0, 80).cdf).pvalue > 0.01


@pytest.mark.parametrize("process", [DDPM(), Cosine(), Linear(100)])
def test_karras_ends_where_a_discrete_process_does(process):
  t = np.asarray(times.karras(process, jnp.arange(18), 18, lo=1e-6, hi=1e9))
  assert t[0] == 1 and t[-1] == pytest.approx(1 / process.steps)
  assert (np.diff(t) < 0).all()  # none is visited twice
