"""Multistep and predictor-corrector samplers: orders, laws, algorithms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_samplers import MEAN, STD, at, exact, gaussian, keys, levels

from jaxgen.diffusion import samplers, times, unipc
from jaxgen.diffusion.process import DDPM, EDM, VE, VP, Flow
from jaxgen.keys import fold, normal

UNIPC = {p: functools.partial(unipc.unipc, order=p) for p in (2, 3)}


def D(x, alpha, sigma):
  """A denoiser of numpy or jax arrays, far from linear."""
  xp = jnp if isinstance(x, jax.Array) else np
  return alpha * xp.tanh(x / (1 + sigma)) + 0.1 * x / (1 + sigma**2)


def denoise(x_t, t):
  return D(x_t, t.alpha, t.sigma)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("process", [EDM(), DDPM()], ids=repr)
def test_unipc_converges_one_order_above_its_own(order, process):
  """Zhao et al. 2023, Prop. D.5 and below: the corrector's is order + 1."""

  @jax.jit
  def error(n):
    points = levels(process, times.karras, 256, n)
    T, last = at(points, 0), at(points, n - 1)
    x_T = T.sigma * jnp.linspace(-2, 2, 5)[:, None]
    x_0 = UNIPC[order](gaussian, x_T, points, n, keys(5))
    return jnp.abs(x_0 - gaussian(exact(x_T, T, last), last)).max()

  with jax.enable_x64(True):
    n = np.array([64, 128, 256])
    # Between a table's points logsnr has kinks, which the ODE does not feel.
    slope, _ = np.polyfit(np.log(n), np.log([error(m) for m in n]), 1)
    assert order + 0.85 < -slope < order + 1.15


def uni_pc_bh2(x, alpha, sigma, order):
  """The authors' multistep loop with data prediction, variant bh2.

  The last of the points is clean: its step is of order 1 and not corrected.
  """
  with np.errstate(divide="ignore"):
    lam = np.log(alpha) - np.log(sigma)
  steps = len(lam) - 1
  known = [D(x, alpha[0], sigma[0])]
  for step in range(1, steps + 1):
    p = min(step, order, steps + 1 - step)
    h = lam[step] - lam[step - 1]
    if step == steps:
      return sigma[-1] / sigma[-2] * x - alpha[-1] * np.expm1(-h) * known[-1]
    r = [(lam[step - 1 - i] - lam[step - 1]) / h for i in range(1, p)]
    D1 = [(known[-1 - i] - known[-1]) / r[i - 1] for i in range(1, p)]
    r = np.array([*r, 1.0])
    hh, B_h = -h, np.expm1(-h)
    phi, factorial, b, R = np.expm1(hh) / hh - 1, 1, [], []
    for i in range(1, p + 1):
      R.append(r ** (i - 1))
      b.append(phi * factorial / B_h)
      factorial *= i + 1
      phi = phi / hh - 1 / factorial
    R, b = np.array(R), np.array(b)
    rho_p = [0.5] if p == 2 else np.linalg.solve(R[:-1, :-1], b[:-1])
    rho_c = [0.5] if p == 1 else np.linalg.solve(R, b)
    base = sigma[step] / sigma[step - 1] * x - alpha[step] * B_h * known[-1]
    more = sum((w * d for w, d in zip(rho_p, D1, strict=True)), 0 * x)
    x_t = base - alpha[step] * B_h * more
    new = D(x_t, alpha[step], sigma[step])
    more = sum((w * d for w, d in zip(rho_c, D1, strict=False)), 0 * x)
    more = more + rho_c[-1] * (new - known[-1])
    x = base - alpha[step] * B_h * more
    known.append(new)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("process", [VP(), EDM()], ids=repr)
def test_unipc_is_the_authors_algorithm(order, process):
  @jax.jit
  def sample(n):
    path = levels(process, times.karras, 15, n)
    x_T = samplers.initial(path, keys(2), (3,))
    return x_T, path, UNIPC[order](denoise, x_T, path, n, keys(2))

  with jax.enable_x64(True):
    for n in (1, 2, 3, 4, 5, 12):
      x_T, path, ours = sample(n)
      alpha, sigma = np.append(path.alpha[:n], 1), np.append(path.sigma[:n], 0)
      want = uni_pc_bh2(np.asarray(x_T), alpha, sigma, order)
      np.testing.assert_allclose(ours, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("process", [DDPM(), Flow()], ids=repr)
def test_unipc_survives_paths_that_stand_still(process):
  """Legs of no length change nothing, and none divides by one."""

  @jax.jit
  def sample(t, n):
    return UNIPC[3](denoise, jnp.ones((2, 3)), process(t), n, keys(2))

  for t in ([1.0, 0.6, 0.6, 0.6, 0.2, 0.1], [1.0, 0.6, 0.2, 0.2, 0.1, 0.1]):
    assert np.all(np.isfinite(sample(jnp.array(t), 6)))


def test_2m_sde_without_noise_is_2m():
  for process, path in ((EDM(), times.karras), (Flow(), times.even)):
    points = levels(process, path, 20)
    x_T = samplers.initial(points, keys(4), (3,))
    ours = samplers.dpmpp_2m_sde(denoise, x_T, points, 20, keys(4), eta=0.0)
    want = samplers.dpmpp_2m(denoise, x_T, points, 20, keys(4))
    np.testing.assert_allclose(ours, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_2m_sde_is_k_diffusions(eta):
  """Its loop for alpha = 1, "midpoint", whose last step is denoising."""
  with jax.enable_x64(True):
    n, key = 11, keys(4)
    path = levels(EDM(), times.karras, n)
    x_T = samplers.initial(path, keys(4, seed=1), (3,))
    draws = [np.asarray(normal(fold(key, i), (3,))) for i in range(n)]
    ours = samplers.dpmpp_2m_sde(denoise, x_T, path, n, key, eta=eta)

    x, sigmas = np.asarray(x_T), np.append(path.sigma, 0.0)
    old = h_last = None
    for i in range(n):
      denoised = D(x, 1.0, sigmas[i])
      if sigmas[i + 1] == 0:
        x = denoised
        break
      h = np.log(sigmas[i]) - np.log(sigmas[i + 1])
      eta_h = eta * h
      x = sigmas[i + 1] / sigmas[i] * np.exp(-eta_h) * x
      x = x - np.expm1(-h - eta_h) * denoised
      if old is not None:
        r = h_last / h
        x = x - 0.5 * np.expm1(-h - eta_h) / r * (denoised - old)
      x = x + draws[i] * sigmas[i + 1] * np.sqrt(-np.expm1(-2 * eta_h))
      old, h_last = denoised, h
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-10)


def langevin(x, score, snr, alpha, z, most):
  """LangevinCorrector with an example's own norm of the score; a bound."""
  step = (snr * np.sqrt(x.size) / np.linalg.norm(score)) ** 2 * 2 * alpha
  step = min(step, most)
  return x + step * score + np.sqrt(2 * step) * z


def pc_loop(D, process, x, path, snr, draws, cap):
  """get_pc_sampler: a corrector and a reverse-diffusion predictor a time."""
  n = len(path.sigma)
  alphas, sigmas = np.asarray(path.alpha), np.append(path.sigma, 0.0)
  for i in range(n):
    alpha, sigma = alphas[i], sigmas[i]
    score = lambda x, a=alpha, s=sigma: (a * D(x, a, s) - x) / s**2
    beta = 0.0 if process == VE() else process.betas[n - 1 - i]
    x = langevin(x, score(x), snr, 1 - beta, draws[2 * i], cap * sigma**2)
    if i == n - 1:
      return D(x, alpha, sigma)
    if process == VE():
      G = np.sqrt(sigma**2 - sigmas[i + 1] ** 2)
      x = x + G**2 * score(x) + G * draws[2 * i + 1]
    else:
      x = x * (2 - np.sqrt(1 - beta)) + beta * score(x)
      x = x + np.sqrt(beta) * draws[2 * i + 1]


def smooth(side=8, length=1.0):
  """E[x_0 | x_t] for Gaussian images of this correlation length, flat."""
  at = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2)
  far = ((at[:, None] - at) ** 2).sum(-1)
  share, basis = np.linalg.eigh(np.exp(-far / 2 / length**2))

  def D(x, alpha, sigma):
    gain = alpha * share / (alpha**2 * share + sigma**2)
    return ((x @ basis) * gain) @ basis.T

  return D


@pytest.mark.parametrize("cap", [np.inf, 1.0])
@pytest.mark.parametrize("D, shape", [(D, (5,)), (smooth(), (64,))], ids=["curved", "smooth"])
@pytest.mark.parametrize("process", [VE(), DDPM(120, 1e-3, 0.05)], ids=repr)
def test_pc_is_score_sdes_loop(process, D, shape, cap):
  """By the published rule, and with steps of at most sigma^2."""
  with jax.enable_x64(True):
    n, key, snr = 120, keys(2), 0.16
    path = levels(process, times.even, n)
    x_T = samplers.initial(path, keys(2, seed=1), shape)
    draws = jnp.stack([normal(fold(key, j), shape) for j in range(2 * n)], 1)
    denoise = lambda x, t: D(x, t.alpha, t.sigma)
    sample = functools.partial(samplers.pc, denoise, x_T, path, n, key, snr)
    ours = sample() if cap == np.inf else sample(cap)
    for b, z in enumerate(np.asarray(draws)):
      x = pc_loop(D, process, np.asarray(x_T[b]), path, snr, z, cap)
      np.testing.assert_allclose(ours[b], x, rtol=1e-8, atol=1e-9)
    assert np.abs(sample(np.inf) - sample(1.0)).max() > 0.01  # it matters


def moments(sampler, process, path, ns, shape, b=400):
  """Errors of mean and deviation for each n, in units of the deviation."""

  @jax.jit
  def sample(n):
    points = levels(process, path, max(ns), n)
    x_T = samplers.initial(points, keys(b), shape)
    return sampler(gaussian, x_T, points, n, keys(b, seed=1))

  x = [np.asarray(sample(n), float) for n in ns]
  return np.array([((a.mean() - MEAN) / STD, a.std() / STD - 1) for a in x])


HALF = functools.partial(samplers.dpmpp_2m_sde, eta=0.5)


@pytest.mark.parametrize(
  "sampler, process, shape, bias",
  [
    (samplers.dpmpp_2m_sde, VE(), (20,), 0.0),
    (samplers.dpmpp_2m_sde, DDPM(), (20,), 0.0),
    (HALF, EDM(), (20,), 0.0),
    (HALF, Flow(), (20,), 0.0),
    # Langevin's steps of that length: 1 / (1 - snr^2) of the variance.
    (samplers.pc, VP(), (500,), 0.013),
    (samplers.pc, EDM(), (500,), 0.013),
  ],
)
def test_stochastic_samplers_have_the_datas_law(sampler, process, shape, bias):
  path = functools.partial(times.karras, lo=0.01)
  ((mean, std),) = moments(sampler, process, path, [150], shape)
  # 8000 draws: standard errors of 0.011 and 0.008.
  assert abs(mean) < 0.04 and abs(std - bias) < 0.025


@pytest.mark.parametrize("process, path", [(VE(), times.even), (EDM(), times.karras)])
def test_the_corrector_helps_where_steps_are_coarse(process, path):
  alone = functools.partial(samplers.pc, snr=0.0)
  both, alone = (
    moments(s, process, path, [15, 40], (100,), b=100)[:, 1] for s in (samplers.pc, alone)
  )
  assert np.all(both < 0.9 * alone)


def test_order_is_known():
  with pytest.raises(ValueError, match="order 2 or 3"):
    unipc.unipc(denoise, jnp.ones((1, 1)), None, 3, keys(1), order=4)
