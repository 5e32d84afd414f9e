"""One contract for every config, and what each family promises on top."""

import collections
import functools
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import EDM, SPECS, filled, jit, same

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.keys import example_keys, fold, normal
from jaxgen.models.classifier import Classifier
from jaxgen.models.diffusion import LONGEST, Diffusion
from jaxgen.models.gan import GAN
from jaxgen.models.vae import VAE, begin, catch_up, root

# Their `debug` is the same model as that of another config, to a size.
ALIKE = "adm_imagenet128 adm_imagenet256 adm_imagenet512 adm_lsun adm_upsample512 ddpm_256".split()
HOME = pathlib.Path(__file__).parents[2] / "configs"
# Other configs have two levels of the same net: each is compiled anew.
ONE_LEVEL = """
  adm_classifier adm_upsample256 anoddpm cdm digits_adm digits_guide edm2 iddpm images_diffusion
  ldm_kl ldm_vq photos sr3
""".split()
CONFIGS = sorted({p.stem for p in HOME.glob("[!_]*.py")} - {*ALIKE})
# Whose games and nets are those of another config here, with other numbers, or have
# a file of tests of their own (test_hierarchy.py).
KIN = set(
  "adm_imagenet64 adm_upsample256 anoddpm biggan cdm ddpm_cifar10 digits_adm digits_latent "
  "gan_control iddpm images_diffusion images_gan ldm_vq vqvae2_prior".split()
)
SEED = jax.random.key(7)
B = 8
NETS = set()  # whose samplers have been compiled for a batch of another size


def fake_batch(c, n=B):
  """What the config's data looks like, without the data."""
  rng, source = np.random.default_rng(0), c.data.source.partition(":")[0]
  if source.startswith("points"):
    return {"x": rng.normal(size=(n, 2)).astype(np.float32)}
  if source == "spoken_digits":
    x = rng.integers(-(2**15), 2**15, (n, c.data.size, 1), np.int16)
    return {"x": x, "y": rng.integers(0, 10, n, np.int32)}
  if source == "unpaired":
    return {k: rng.integers(0, 256, (n, 8, 8, 1), np.uint8) for k in ("x", "source")}
  size, channels, classes = {
    "folder": (c.data.size, 3, 0),
    "stacked_digits": (8, 3, 1000),
    "photos": (c.data.size, 3, 7),
    "digits": (8, 1, 10),
  }[source]
  x = rng.integers(0, 256, (n, size, size, channels), np.uint8)
  return {"x": x, "y": rng.integers(0, classes, n, np.int32)} if classes else {"x": x}


def one_level(net, height):
  """Leaves one level to a U-Net, with attention if there is any."""
  net.mults = (1,)
  if net.attend:
    net.attend = (height,)
  if "head" in net:
    net.head = 8


Played = collections.namedtuple(
  "Played", "config model batch first state seen sample given keys moved"
)


@pytest.fixture(
  scope="module", params=[pytest.param(c, marks=[pytest.mark.slow] * (c in KIN)) for c in CONFIGS]
)
def played(request):
  """A config's game after two full cycles of turns."""
  c = config.load(f"configs/{request.param}.py:debug")
  batch = fake_batch(c)
  if request.param in ONE_LEVEL:
    one_level(c.model.net, batch["x"].shape[1])
  model = build(c.model)
  moved = {p.moves for p in model.players}
  assert set(c.optim) == moved
  tx = {g: build(s)(steps=100) for g, s in c.optim.items()}
  ema = {p: build(s)(batch=B) for p, s in c.ema.items()}
  first = jit(core.make_init(model, tx, tuple(ema)))(batch, SEED)
  step = jit(core.make_step(model, tx, ema), static_argnums=0)
  state, seen = first, []
  for i in range(2 * math.lcm(*(p.every for p in model.players))):
    state, metrics = step(core.turn(model, i), state, batch, SEED)
    seen.append(metrics)
  sample = None if isinstance(model, Classifier) else jit(model.sample)
  given = core.on_device(batch)
  if "gen" in c.model and (make := core.trait(model, "cond").get("mel")):
    given["mel"] = make(given["x"])  # a vocoder that draws nothing
  if make := core.trait(model, "cond").get("source"):  # nor do translators
    given.setdefault("source", make(given["x"]))
  given["x"] = jnp.zeros(batch["x"].shape)
  return Played(c, model, batch, first, state, seen, sample, given, example_keys(SEED, B), moved)


@pytest.fixture(scope="module")
def sampled(played):
  """The same, of those that sample."""
  if isinstance(played.model, Classifier):
    assert not core.trait(played.model, "sample")
    pytest.skip("a classifier judges")
  return played


def knobs(model, **changed):
  """All knobs, traced; few steps, for speed."""
  few = {"steps": 3} if "steps" in model.knobs else {}
  return {k: jnp.float32(v) for k, v in (model.knobs | few | changed).items()}


def test_cycles_keep_the_state_in_shape(played):
  shape = lambda x: (x.shape, x.dtype)
  assert jax.tree.map(shape, played.state) == jax.tree.map(shape, played.first)
  assert played.state.step == len(played.seen)
  assert not played.state.skips.any()
  for group in played.moved:
    assert not same(played.state.params[group], played.first.params[group])
  for leaf in jax.tree.leaves(played.state):
    assert np.isfinite(np.asarray(leaf, np.float64)).all()


def test_losses_are_finite_and_have_a_slope(played):
  players = {p.name: p for p in played.model.players}
  assert len(players) == len(played.model.players)
  for i, metrics in enumerate(played.seen):
    for name, player in players.items():
      moves = i % player.every == 0
      assert (f"{name}/loss" in metrics) == moves
      if moves:
        assert np.isfinite(metrics[f"{name}/loss"])
        assert 0 < metrics[f"{name}/grad_norm"] < np.inf
    assert all(np.shape(v) == () for v in metrics.values())


def test_what_is_sampled_is_what_is_averaged(sampled):
  model, state = sampled.model, sampled.state
  assert set(model.sampled) <= set(state.params)
  for average in state.ema.values():
    assert set(average) == set(model.sampled) & sampled.moved
  # Nothing else is read: other groups may be missing altogether.
  bare = state.replace(
    opt={},
    ema={},
    params={g: state.params[g] for g in model.sampled},
    stats={g: state.stats[g] for g in model.sampled if g in state.stats},
  )
  jax.eval_shape(model.sample, bare, sampled.given, sampled.keys)


def test_samples_are_finite_and_repeatable(sampled):
  draw = functools.partial(sampled.sample, sampled.state, **knobs(sampled.model))
  x = draw(sampled.given, sampled.keys)
  assert x.shape == sampled.batch["x"].shape
  assert len(np.unique(np.asarray(x).reshape(B, -1), axis=0)) == B
  assert x.dtype == jnp.float32 and np.isfinite(x).all()
  assert same(x, draw(sampled.given, sampled.keys))
  # Which sample comes out does not depend on what is drawn beside it,
  order = np.array([5, 6, 7, 0, 5, 5, 2, 4])
  take = lambda i: ({k: v[i] for k, v in sampled.given.items()}, sampled.keys[i])
  np.testing.assert_allclose(draw(*take(order)), x[order], atol=1e-5)
  # ... nor on how much: another program, so the first config of each net says so.
  spec = sampled.config.model
  inner = spec.get("model", spec)
  own = inner.get("net") or inner.get("gen") or inner.top.net
  net = spec.name, own.name, bool(spec.get("cond"))
  if net not in NETS:
    NETS.add(net)
    some = slice(3, 6)
    np.testing.assert_allclose(draw(*take(some)), x[some], atol=1e-5)


def test_knobs_turn_without_compiling(sampled):
  model, sample = sampled.model, sampled.sample
  # Two steps after the start, a net hardly listens to its conditions yet.
  args = filled(sampled.state), sampled.given, sampled.keys
  x = sample(*args, **knobs(model))
  programs = sample._cache_size()
  for name, value in knobs(model).items():
    assert isinstance(model.knobs[name], float | int)
    turned = sample(*args, **knobs(model, **{name: 2.0 if name in ("steps", "guidance") else 0.5}))
    assert np.isfinite(turned).all(), name
    nfe = model.nfe(**model.knobs | {name: float(value)})
    assert type(nfe) is int and nfe >= 1
    if name in ("steps", "temperature", "noise", "guidance"):
      assert not same(turned, x), name
  assert sample._cache_size() == programs
  assert model.nfe() == model.nfe(**model.knobs)


def test_classifiers_judge(played):
  if not isinstance(played.model, Classifier):
    pytest.skip("not a classifier")
  x = core.on_device(played.batch)
  logits = played.model.logits(played.state, x)
  assert logits.shape == (B, played.config.data.classes)
  features = played.model.embed(played.state, x)
  assert features.ndim == 2 and len(features) == B
  if played.model.process:
    return  # it learns from noisy ones: see test_classifier.py
  loss, (_, m) = played.model.loss(played.state, x, played.keys)
  log_p, share = np.asarray(jax.nn.log_softmax(logits)), played.model.smoothing
  nll = -log_p[np.arange(B), x["y"]]
  nll = (1 - share) * nll - share * log_p.mean(1)
  np.testing.assert_allclose(loss, nll.mean(), rtol=1e-5)
  assert m["accuracy"] == np.mean(np.argmax(logits, -1) == x["y"])


# Diffusion.


class Told(nn.Module):
  """A net that is told F, and what to compare its inputs with."""

  @nn.compact
  def __call__(self, x, c_noise, y=None, key=None, F=None, noisy=None):
    self.param("w", nn.initializers.zeros, ())
    # Scaled as the paper says, or the answer is spoiled.
    return jnp.where(jnp.abs(x - noisy).max() < 1e-4, F, jnp.nan)


def expected_F(name, x, eps, alpha, sigma):
  """What each paper's network predicts, in its own words; and its input."""
  x_t = alpha * x + sigma * eps
  if name == "edm":  # Karras et al. 2022, Table 1: D = c_skip x + c_out F
    data = 0.5
    c_skip = data**2 / (sigma**2 + data**2)
    c_out = sigma * data / np.sqrt(sigma**2 + data**2)
    return (x - c_skip * x_t) / c_out, x_t / np.sqrt(sigma**2 + data**2)
  F = {"eps": eps, "vp": eps, "x0": x, "ve": -eps, "flow": eps - x}
  return F.get(name, alpha * eps - sigma * x), x_t


PAIRS = """
  DDPM eps, DDPM x0, DDPM v, DDPM vp, Linear eps, Linear x0, Cosine eps, Cosine x0, Cosine v,
  VP vp, VP x0, VP v, VP eps, VE ve, VE edm, VE x0, EDM edm, EDM ve, EDM x0, Flow flow, Flow x0
"""


@pytest.mark.parametrize("process, precond", [pair.split() for pair in PAIRS.split(",")])
def test_who_knows_the_truth_has_no_loss(process, precond):
  t = jnp.linspace(0.25, 0.75, B).reshape(B, 1)
  model = Diffusion(
    net=Told(),
    process=build(dict(name=f"diffusion.process.{process}")),
    precond=build(dict(name=f"diffusion.precond.{precond}")),
    draw_t=lambda key, ndim: t,
    path=None,
    sampler=None,
    cond=dict.fromkeys(("F", "noisy")),
  )
  x = jax.random.uniform(SEED, (B, 2), minval=-1, maxval=1)
  keys = example_keys(SEED, B)
  eps = normal(fold(keys, 1), (2,))
  noise = model.process(t)
  F, noisy = expected_F(
    precond, *(np.asarray(a, np.float64) for a in (x, eps, noise.alpha, noise.sigma))
  )
  batch = {"x": x, "F": jnp.float32(F), "noisy": jnp.float32(noisy)}
  params, stats = {"net": {"w": jnp.zeros(())}}, {"net": {}}
  state = core.State(0, params, stats, {}, {}, None)
  loss = lambda batch: model.loss(state, batch, keys)[0]
  assert loss(batch) < 1e-7
  # And by how much somebody is wrong is what it costs.
  wrong = batch | {"F": batch["F"] + 0.5}
  np.testing.assert_allclose(loss(wrong), 0.25, rtol=1e-3)


class Counting(nn.Module):
  """A net that counts its evaluations, and answers with its label."""

  @nn.compact
  def __call__(self, x, c_noise, y=None, key=None):
    w = self.param("w", nn.initializers.ones, ())
    jax.debug.callback(count)
    return w * (jnp.zeros_like(x) + y[:, None])


CALLS = []


def count():
  CALLS.append(1)


def labelled(sampler, **kw):
  model = build(
    dict(
      name="models.diffusion.Diffusion",
      net=Counting(),
      classes=3,
      **EDM
      | dict(
        precond=dict(name="diffusion.precond.x0"),
        sampler=dict(name=f"diffusion.samplers.{sampler}"),
      ),
      **kw,
    )
  )
  state = core.State(0, {"net": {"w": jnp.ones(())}}, {"net": {}}, {}, {}, None)
  return model, state


@pytest.mark.parametrize("sampler", ["heun", "ancestral", "dpmpp_2m"])
def test_nfe_counts_evaluations(sampler):
  model, state = labelled(sampler)
  batch = {"x": jnp.zeros((2, 2)), "y": jnp.array([0, 1])}
  keys = example_keys(SEED, 2)
  sample = jax.jit(model.sample)
  twice = [dict(steps=4, guidance=2.0), dict(steps=3.0, guidance=0.0)]
  for kw in ({}, dict(steps=0), dict(steps=1), dict(steps=4), *twice):
    CALLS.clear()
    jax.block_until_ready(sample(state, batch, keys, **{k: jnp.float32(v) for k, v in kw.items()}))
    jax.effects_barrier()
    assert len(CALLS) == model.nfe(**kw), kw
  assert model.nfe(steps=10**6) == model.nfe(steps=LONGEST)


def test_label_minus_one_is_nobody():
  # The net answers with its label, so that samples tell which one it got.
  model, state = labelled("euler", steps=4)
  keys = example_keys(SEED, 4)
  sample = functools.partial(jax.jit(model.sample), state)
  x, y = jnp.zeros((4, 2)), jnp.array([-1, 0, 2, -1])
  got = sample({"x": x, "y": y}, keys)
  np.testing.assert_allclose(got, [[3, 3], [0, 0], [2, 2], [3, 3]], atol=1e-5)
  np.testing.assert_allclose(sample({"x": x}, keys), 3, atol=1e-5)
  # Guidance: null + w (cond - null); nothing pushes those without a label.
  got = sample({"x": x, "y": y}, keys, guidance=2.0)
  np.testing.assert_allclose(got[:, 0], [3, -3, 1, 3], atol=1e-5)


def test_who_never_dropped_labels_wants_one():
  model, state = labelled("euler", steps=4, label_drop=0.0)
  assert "guidance" not in model.knobs
  with pytest.raises(ValueError, match="give it batch"):
    model.sample(state, {"x": jnp.zeros((2, 2))}, example_keys(SEED, 2))


def test_bound_clips_the_estimate():
  model, state = labelled("euler", steps=4, bound=1.0)
  got = model.sample(state, {"x": jnp.zeros((2, 2)), "y": jnp.array([2, 0])}, example_keys(SEED, 2))
  np.testing.assert_allclose(got[:, 0], [1, 0], atol=1e-5)


def test_labels_are_dropped_at_the_rate_asked_for():
  model, _ = labelled("euler", label_drop=0.3)
  n = 4096
  keys = example_keys(SEED, n)
  y = model.drop_labels({"y": jnp.arange(n) % 3}, keys)["y"]
  lost = np.asarray(y == 3)
  assert abs(lost.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
  np.testing.assert_array_equal(y[~lost], (np.arange(n) % 3)[~lost])
  part = model.drop_labels({"y": jnp.arange(8) % 3}, keys[:8])["y"]
  np.testing.assert_array_equal(part, y[:8])


# VAE.


W = np.array([[1.0, -2.0, 0.5, 0.0], [0.3, 1.0, 1.0, -1.0]])


class Linear(nn.Module):
  """x = (mean, logvar) itself; the decoder is a matrix."""

  z_dim: int = 2

  @nn.compact
  def encode(self, x, y=None):
    return x[:, :2], x[:, 2:]

  def decode(self, z, y=None):
    return z @ jnp.float32(W)


def bound(x, n=1, seed=0, **kw):
  state = core.State(0, {"net": {}}, {"net": {}}, {}, {}, None)
  model = VAE(Linear(), **kw)
  x = jnp.repeat(jnp.float32(x), n, 0)
  loss, (_, metrics) = jax.jit(functools.partial(model.loss, state))(
    {"x": x}, example_keys(jax.random.key(seed), len(x))
  )
  return float(loss), {k: float(v) for k, v in metrics.items()}


def test_kl_is_the_closed_form_and_what_it_means():
  x = np.array([[1.0, -0.5, 0.4, -1.0], [0.0, 2.0, -2.0, 0.0]])
  mean, std = x[:, :2], np.exp(x[:, 2:] / 2)
  _, m = bound(x)
  kl = np.sum(np.log(1 / std) + (std**2 + mean**2) / 2 - 0.5, 1)
  np.testing.assert_allclose(m["kl"], kl.mean(), rtol=1e-6)
  # E_q[log q(z) - log p(z)] by drawing z.
  eps = np.random.default_rng(0).normal(size=(200_000, 1, 2))
  z = mean + std * eps
  gap = np.sum((z**2 - eps**2) / 2 - np.log(std), -1).mean(1)
  assert abs(gap.mean() - m["kl"]) < 5 * gap.std() / np.sqrt(len(gap))
  nothing = np.zeros((1, 4))
  assert bound(nothing)[1]["kl"] == 0


def test_reconstruction_is_the_gaussian_likelihood():
  x, sigma, n = np.array([[1.0, -0.5, 0.4, -1.0]]), 0.7, 20_000
  loss, m = bound(x, n, sigma=sigma, beta=3.0)
  # E |W z - x|^2 = |W mean - x|^2 + tr(W' diag(var) W).
  mean, var = x[0, :2], np.exp(x[0, 2:])
  squared = np.sum((mean @ W - x[0]) ** 2) + np.sum(var @ W**2)
  np.testing.assert_allclose(m["recon"], squared / (2 * sigma**2), rtol=0.03)
  np.testing.assert_allclose(loss, m["recon"] + 3 * m["kl"], rtol=1e-6)


def test_a_sigma_that_follows_the_data_is_the_root_of_its_error():
  model, x = VAE(Linear(), sigma=None), jnp.array([[1.0, -0.5, -40.0, -40.0]])
  state = core.State(jnp.int32(0), {"net": {}}, {"net": {"decoder": begin()}}, {}, {}, None)
  error = np.mean((np.array([1.0, -0.5]) @ W - x[0]) ** 2)  # z is its mean
  square, keys, loss_of = 0.25, example_keys(SEED, 1), jax.jit(model.loss)
  for step in (0, 0, 1, 1, 1, 2):  # in parts: those of a step have one sigma
    square += (step > state.step) * 0.1 * (error - square)
    state = state.replace(step=jnp.int32(step))
    loss, (stats, m) = loss_of(state, {"x": x}, keys)
    np.testing.assert_allclose(m["sigma"], square**0.5, rtol=1e-5)
    np.testing.assert_allclose(m["recon"], 4 * error / (2 * square), rtol=1e-5)
    np.testing.assert_allclose(loss, m["recon"] + m["kl"] + 4 * np.log(square) / 2, rtol=1e-5)
    state = state.replace(stats=stats)
  sample, unit = jax.jit(model.sample), normal(fold(keys, 1), (4,))
  plain, noisy = (sample(state, {"x": x}, keys, noise=n) for n in (0.0, 1.0))
  np.testing.assert_allclose(noisy - plain, square**0.5 * unit, rtol=1e-4)


def test_a_sigma_is_never_finer_than_bytes():
  decoder = begin() | {"seen": 1.0, "square": 0.0}
  later = catch_up(decoder, jnp.int32(1))
  assert later["square"] == 0 and root(later) == pytest.approx(1 / 255)


def test_vae_samples_have_the_priors_moments():
  model, n = VAE(Linear(), sigma=0.5), 20_000
  state = core.State(0, {"net": {}}, {"net": {}}, {}, {}, None)
  draw = functools.partial(
    jax.jit(model.sample), state, {"x": jnp.zeros((n, 4))}, example_keys(SEED, n)
  )
  for kw, cov in (
    (dict(), W.T @ W),
    (dict(temperature=0.5), W.T @ W / 4),
    (dict(noise=1.0), W.T @ W + 0.25 * np.eye(4)),
    (dict(temperature=0.0, noise=2.0), np.eye(4)),
  ):
    np.testing.assert_allclose(np.cov(draw(**kw).T), cov, atol=0.15)


# GAN.


def test_gan_losses_are_the_rules_of_its_logits():
  r1 = dict(name="adversarial.penalties.r1", gamma=2.0)
  rule = dict(name="adversarial.losses.hinge")
  model = build(SPECS["gan"] | dict(rule=rule, penalties=[dict(name="models.gan.Penalty", fn=r1)]))
  assert isinstance(model, GAN)
  batch, keys = {"x": jnp.ones((4, 2))}, example_keys(SEED, 4)
  params, stats = jax.eval_shape(model.init, batch, SEED)
  state = filled(core.State(0, params, stats, {}, {}, None))
  fake, _ = model.generate(state, batch, fold(keys, 0))
  D = lambda x: model.disc.apply(state.variables("disc"), x)
  loss, (_, m) = model.disc_loss(state, batch, keys)
  hinge = (
    np.maximum(1 - np.asarray(D(batch["x"])), 0).mean()
    + np.maximum(1 + np.asarray(D(fake)), 0).mean()
  )
  slope = jax.vmap(jax.grad(lambda x: D(x[None])[0]))(batch["x"])
  r1 = np.sum(np.asarray(slope) ** 2, -1).mean()
  np.testing.assert_allclose(loss, hinge + r1, rtol=1e-5)
  np.testing.assert_allclose(m["r1"], r1, rtol=1e-5)
  higher = np.asarray(D(batch["x"]))[:, None] > np.asarray(D(fake))
  assert m["accuracy"] == pytest.approx(higher.mean())
  loss, _ = model.gen_loss(state, batch, keys)
  np.testing.assert_allclose(loss, -np.asarray(D(fake)).mean(), rtol=1e-5)
  assert same(model.sample(state, batch, fold(keys, 0)), fake)


@pytest.mark.parametrize(
  ("name", "shape", "said"),
  [
    ("images_diffusion", (8, 16, 3), None),
    ("dcgan", (8, 16, 1), "it makes squares, and data.size takes the middle"),
    ("dcgan", (8, 8, 3), "adapt config.model or config.data .size, channels"),
    ("digits_gan unlabelled", (8, 8, 1), "know classes, and there are no"),
    ("digits_vae unlabelled", (8, 8, 1), "know classes, and there are no"),
  ],
)
def test_what_a_model_makes_of_other_images(name, shape, said):
  from jaxgen import config, sharding
  from jaxgen.data.arrays import Arrays
  from jaxgen.errors import UserError
  from jaxgen.experiment import Experiment

  c = config.load(f"configs/{name.split()[0]}.py:debug")
  labels, known = np.arange(20, dtype=np.int32) % 10, c.data.classes
  if "unlabelled" in name:
    c.data.classes = known = c.model.classes = 0
  source = Arrays("other", np.zeros((20, *shape), np.uint8), labels if known else None, known)
  experiment = Experiment.of(c)
  mesh = sharding.make_mesh(c.mesh)
  if said is None:
    experiment.abstract(source, mesh)
    return
  with pytest.raises(UserError, match=said):
    experiment.abstract(source, mesh)
