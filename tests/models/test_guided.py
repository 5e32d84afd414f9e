"""Guidance by a second model: the right distribution, and no work for none."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import EDM

from jaxgen import core
from jaxgen.config import build
from jaxgen.diffusion import guidance, samplers
from jaxgen.errors import UserError
from jaxgen.keys import example_keys, fold
from jaxgen.models.classifier import Classifier
from jaxgen.models.guided import Guided

SEED = jax.random.key(5)
M, S = 0.6, 0.1  # class 0 is N(-M, S^2), class 1 is N(M, S^2)
CALLS = {"net": 0, "guide": 0}


def count(who):
  CALLS[who] += 1


def log_p(x, sigma):
  """log p(x_t | y) but for a constant, [B, 2], and E[x_0 | x_t, y]."""
  means, var = jnp.array([-M, M]), S**2 + sigma**2
  x_0 = means + S**2 / var * (x - means)
  return -((x - means) ** 2) / (2 * var), x_0


class Truth(nn.Module):
  """The best denoiser of the mixture, or of the class asked for."""

  @nn.compact
  def __call__(self, x, c_noise, y=None, key=None):
    w = self.param("w", nn.initializers.ones, ())
    jax.debug.callback(count, "net")
    logits, x_0 = log_p(x, (c_noise[:, None] + 1) / 1000)
    p = jax.nn.softmax(logits)
    if y is not None:
      p = jnp.where(y[:, None] < 2, jax.nn.one_hot(y, 2), p)
    return w * jnp.sum(p * x_0, -1, keepdims=True)


class Bayes(nn.Module):
  """p(y | x_t), exactly."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    w = self.param("w", nn.initializers.ones, ())
    jax.debug.callback(count, "guide")
    return w * log_p(x, (c_noise[:, None] + 1) / 1000)[0]


X0 = dict(precond=dict(name="diffusion.precond.x0"))
NOISE = {k: EDM[k] for k in ("process", "draw_t")} | X0


def diffusion(sampler="samplers.euler", net=None, **kw):
  path = dict(name="diffusion.times.karras", lo=0.01, hi=20.0)
  spec = NOISE | dict(path=path, sampler=dict(name=f"diffusion.{sampler}")) | kw
  return build(dict(name="models.diffusion.Diffusion", net=net or Truth(), **spec))


def guided(sampler="samplers.euler", guide=None, **kw):
  """-> the model, a state and draw(labels, **knobs), one program."""
  guide = guide or build(dict(name="models.classifier.Classifier", net=Bayes(), **NOISE))
  return playing(Guided(diffusion(sampler, **kw), guide))


def playing(model):
  params, stats = model.init({"x": jnp.zeros((1, 1))}, SEED)
  assert set(params) == set(model.sampled)
  state = core.State(0, params, stats, {}, {}, None)
  sample = jax.jit(model.sample)

  def draw(y, **knobs):
    batch = {"x": jnp.zeros((len(y), 1)), "y": jnp.asarray(y)}
    knobs = {k: jnp.float32(v) for k, v in (model.knobs | knobs).items()}
    x = sample(state, batch, example_keys(SEED, len(y)), **knobs)
    assert sample._cache_size() == 1
    return np.asarray(x)[:, 0]

  return model, state, draw


@pytest.mark.parametrize(
  ("sampler", "knobs"),
  [
    ("samplers.euler", dict(steps=60)),
    ("samplers.ancestral", dict(steps=150, eta=1.0)),  # Alg. 1
    ("samplers.ancestral", dict(steps=60, eta=0.0)),  # Alg. 2
  ],
)
def test_a_true_classifier_makes_it_conditional(sampler, knobs):
  """score of p(x_t) + gradient of log p(y | x_t) = score of p(x_t | y)."""
  _, _, draw = guided(sampler)
  n = 3000
  y = np.arange(n) % 3 - 1
  x = draw(y, scale=1.0, **knobs)
  for label, mean in ((0, -M), (1, M)):
    mine = x[y == label]
    assert abs(mine.mean() - mean) < 0.02, label
    assert abs(mine.std() - S) < 0.015, label
  free = x[y == -1]  # whom nobody pushes
  assert abs(np.mean(free > 0) - 0.5) < 5 * 0.5 / np.sqrt(n / 3)
  np.testing.assert_allclose(np.abs(free).mean(), M, atol=0.02)
  # Elsewhere than in the interval nothing pushes.
  still = draw(y, **knobs | dict(scale=1.0, lo=50.0))
  np.testing.assert_array_equal(still, draw(y, scale=0.0, **knobs))


def test_which_algorithm_is_used():
  """DDPM's step by Alg. 1, any other eta by Alg. 2; clipped before."""
  model, state, draw = guided("samplers.ancestral", bound=0.5)
  keys, n, y = example_keys(SEED, 6), 5, jnp.arange(6) % 2
  batch = {"x": jnp.zeros((6, 1)), "y": y}
  path = model.diffusion.process(model.diffusion.path(model.diffusion.process, jnp.arange(n), n))
  x_T = samplers.initial(path, fold(keys, 0), (1,))
  gradient = model.guide.gradient(state.replace(params={"net": state.params["guide"]}), y)
  D = model.diffusion.denoiser(state, batch)
  by_hand = functools.partial(samplers.ancestral, x_T=x_T, path=path, n=n, key=fold(keys, 1))
  first = jax.jit(lambda: by_hand(D, eta=1.0, gradient=lambda x, t: 3.0 * gradient(x, t)))()
  second = jax.jit(lambda: by_hand(guidance.classifier(D, gradient, 3.0), eta=0.4))()
  for eta, expected in ((1.0, first), (0.4, second)):
    got = draw(y, steps=n, eta=eta, scale=3.0)
    np.testing.assert_allclose(got, expected[:, 0], rtol=1e-4, atol=1e-5)
    assert np.abs(got - draw(y, steps=n, eta=eta, scale=0.0)).max() > 0.05


class Constant(nn.Module):
  """Its one estimate of x_0."""

  value: float

  @nn.compact
  def __call__(self, x, c_noise, y=None, key=None):
    w = self.param("w", nn.initializers.ones, ())
    jax.debug.callback(count, "guide" if self.value < 0.5 else "net")
    return jnp.full_like(x, self.value) * w


def test_autoguidance_is_its_equation():
  bad = diffusion(net=Constant(0.3), bound=1.0)
  y = [0, 0]
  cases = (None, 3.0, 2.1), (1.0, 3.0, 1.0), (None, 0.0, 0.3), (None, 1.0, 0.9)
  for bound, auto, expected in cases:
    model, state, draw = guided(guide=bad, net=Constant(0.9), bound=bound)
    np.testing.assert_allclose(draw(y, steps=4, auto=auto), expected, rtol=1e-5)
  # At the last points alone, or nowhere: sigma is 0.01 at the end.
  for lo, hi, expected in ((0.0, 0.02, 2.1), (0.02, 99.0, 0.9)):
    got = draw(y, steps=4, auto=3.0, lo=lo, hi=hi)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("sampler", ["samplers.heun", "samplers.ancestral"])
def test_evaluations_are_counted_and_none_is_wasted(sampler):
  bad = diffusion(sampler, net=Constant(0.1), classes=2)
  classified, _, push = guided(sampler, classes=2)
  worse, _, draw = guided(sampler, guide=bad, net=Constant(0.9), classes=2)
  autos = dict(auto=1.0), dict(auto=2.0), dict(auto=2.0, guidance=1.5)
  scales = [dict(scale=0.0), dict(scale=2.0), dict(scale=2.0, guidance=2.0)]
  if "eta" in classified.knobs:
    scales += [dict(scale=2.0, eta=e) for e in (0.0, 1.0)]
  cases = [(worse, draw, kw) for kw in autos] + [(classified, push, kw) for kw in scales]
  for model, draw, kw in cases:
    CALLS.update(net=0, guide=0)
    draw([0, 1, 0], steps=4, **kw)
    jax.effects_barrier()
    assert sum(CALLS.values()) == model.nfe(steps=4, **kw), kw
    assert type(model.nfe(**kw)) is int
    off = kw.get("auto") == 1 or kw.get("scale") == 0
    assert (CALLS["guide"] == 0) == off, kw


def test_no_guidance_is_the_diffusion_model_itself():
  y = [0, 1, 1, 0]
  for guide, off in ((None, dict(scale=0.0)), (diffusion(net=Constant(0.1)), dict(auto=1.0))):
    model, state, draw = guided(guide=guide)
    alone = playing(model.diffusion)[2](y, steps=7)
    np.testing.assert_array_equal(draw(y, steps=7, **off), alone)
    assert np.abs(draw(y, steps=7) - alone).max() > 0.01


def test_flow_begins_where_x_t_says_nothing():
  """At alpha = 0 Alg. 2's factor is infinite: there is no push."""
  flow = dict(process=dict(name="diffusion.process.Flow"))
  guide = build(dict(name="models.classifier.Classifier", net=Bayes(), **NOISE | flow))
  even = dict(path=dict(name="diffusion.times.even"))
  model = Guided(diffusion(net=Constant(0.5), **flow, **even), guide)
  _, _, draw = playing(model)
  for scale in (0.0, 1.0):
    assert np.isfinite(draw([0, 1], steps=5, scale=scale)).all()


def test_strangers_cannot_guide():
  clean = Classifier(Bayes())
  linear = NOISE | dict(process=dict(name="diffusion.process.Linear"))
  other = build(dict(name="models.classifier.Classifier", net=Bayes(), **linear))
  with pytest.raises(UserError, match="trained on clean x"):
    Guided(diffusion(), clean)
  with pytest.raises(UserError, match=r"process Linear\(steps=1000\), but"):
    Guided(diffusion(), other)
