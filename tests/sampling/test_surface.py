"""The parts of a model as functions: each says what the model itself does."""

import functools

import flax.linen as nn
import games
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import untrained
from games import EDM, same

import jaxgen
from jaxgen import config, train
from jaxgen.config import build
from jaxgen.diffusion.denoiser import mean
from jaxgen.errors import UserError
from jaxgen.keys import normal
from jaxgen.models import gan as gan_models
from jaxgen.models.anogan_encoder import AnoGANEncoder
from jaxgen.models.cascade import Cascade
from jaxgen.models.classifier import Classifier
from jaxgen.models.codec import KL, Autoencoder
from jaxgen.models.cycle_gan import CycleGAN
from jaxgen.models.guided import Guided
from jaxgen.models.latent import Latent
from jaxgen.models.mean_flow import MeanFlow
from jaxgen.models.pix2pix import Pix2Pix

MLP = dict(name="nets.mlp.Denoiser", width=8, depth=1, classes=3)
VP = EDM | dict(
  process=dict(name="diffusion.process.VP"), draw_t=dict(name="diffusion.times.uniform")
)
POINTS = dict(name="models.diffusion.Diffusion", net=MLP, **VP, classes=3, label_drop=0.5)
GAN = dict(
  name="models.gan.GAN",
  gen=dict(name="nets.mlp.Generator", width=8, depth=1, classes=3),
  disc=dict(name="nets.mlp.Discriminator", width=8, depth=1, classes=3),
  rule=dict(name="adversarial.losses.hinge"),
  z_dim=4,
  classes=3,
)
CODEC = dict(name="models.vae.VAE", net=dict(name="nets.mlp.Codec", width=8, depth=1, z_dim=2))
X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
Y = np.array([0, 1, 2, -1], np.int32)


class TwoTimes(nn.Module):
  """F(z, c) of a MeanFlow, or logits of a classifier of x_t."""

  out: int = 2

  @nn.compact
  def __call__(self, x, c, y=None, key=None):
    return nn.Dense(self.out)(jnp.concatenate([x, jnp.tanh(c.reshape(len(x), -1))], -1) ** 2)


class Translator(nn.Module):
  """x of a source, both [B, H, W, C]."""

  norm: str = "none"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, source, key=None, own=None, drop=1.0):
    return nn.Dense(1)(source)


class Patches(nn.Module):
  """Logits [B, H, W]."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(1)(x)[..., 0]


class Halves(nn.Module):
  """An autoencoder of latents of half the height and width."""

  factor, dim = 2, 3

  def setup(self):
    self.down = nn.Conv(6, (2, 2), strides=2)
    self.up = nn.ConvTranspose(1, (2, 2), strides=(2, 2))

  def __call__(self, x):
    return self.decode(self.encode(x)[0])

  def encode(self, x):
    return jnp.split(self.down(x), 2, -1)

  def decode(self, z):
    return self.up(z)


class Styles(nn.Module):
  """A generator of two halves, which draws noise where it has a key."""

  knobs = {"psi": 1.0}

  def setup(self):
    self.first, self.second = nn.Dense(3), nn.Dense(2)

  def __call__(self, z, y=None, key=None, psi=1.0):
    return self.synthesize(self.map(z, y, psi), key)

  def map(self, z, y=None, psi=1.0):
    return psi * jnp.repeat(self.first(z)[:, None], 2, 1)

  def synthesize(self, ws, key=None):
    noise = 0.0 if key is None else normal(key, (2,))
    return self.second(ws.reshape(len(ws), -1)) + noise


@functools.cache
def points():
  return untrained.sampler_of(POINTS, classes=3)


@functools.cache
def gan():
  return untrained.sampler_of(GAN, classes=3)


@functools.cache
def latents():
  codec, model = build(CODEC), build(POINTS)
  return untrained.sampler_of(Latent(codec, model, scale=2.0, mean=0.5), classes=3)


@functools.cache
def vae():
  return untrained.sampler_of(CODEC)


def near(a, b, tolerance=1e-5):
  np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_one_denoiser_by_three_kinds_of_levels():
  m, t = points(), 0.6
  level = m.process(t)
  own = m.model.denoiser(m.state, {"x": X, "y": jnp.asarray(Y)}, 2.0)
  want = mean(own(X, level))
  D = functools.partial(m.denoiser, Y, guidance=2.0)
  near(D(by="noise")(X, level), want)
  near(D(by="t")(X, t), want)
  near(D()(X / level.alpha, level.sigma / level.alpha), want)
  assert not np.allclose(want, m.denoiser(Y)(X / level.alpha, level.sigma / level.alpha))


def test_levels_of_each_example_labels_for_all_and_weights_from_outside():
  m, sigmas = points(), jnp.array([0.1, 1.0, 3.0, 9.0])
  D = jax.jit(lambda p, s: m.denoiser(1, guidance=2.0, lo=0.5, hi=5.0, params=p)(X, s))
  each = jnp.stack([D(m.params, s)[i] for i, s in enumerate(sigmas)])
  near(D(m.params, sigmas), each)
  zero = jax.tree.map(jnp.zeros_like, m.params)
  assert not np.allclose(D(zero, sigmas), each)


def test_knobs_and_labels_compile_nothing():
  m = points()
  program = jax.jit(lambda x, s, y, w: m.denoiser(y, guidance=w, lo=w)(x, s))
  for i in range(3):
    program(X, 1.0 + i, jnp.asarray(Y), 0.5 * i)
  assert program._cache_size() == 1
  sample = jax.jit(m.sample_fn(4))
  for i in range(1, 4):
    sample(m.params, jax.random.key(i), {"steps": i, "guidance": 0.5 * i, "labels": Y, "noise": X})
  assert sample._cache_size() == 1


def test_a_sample_function_gives_what_sample_does():
  m, key = points(), jax.random.key(3)
  want = m.sample(key, 8, [0, 1], steps=3, guidance=2.0, batch=4)
  run = jax.jit(m.sample_fn(4, steps=3))
  labels = jnp.array([0, 1, 0, 1])
  near(run(m.params, key, {"labels": labels, "guidance": 2.0, "i": jnp.arange(4)}), want[:4])
  near(run(m.params, key, {"labels": labels, "guidance": 2.0, "i": jnp.arange(4, 8)}), want[4:])
  near(run(m.params, key), m.sample(key, 4, steps=3))  # every class in turn
  near(
    run(m.params, key, {"noise": X, "labels": labels}),
    m.sample(9, 4, [0, 1], steps=3, noise=X),  # nothing else is drawn
  )


def test_a_sample_function_is_mapped_and_differentiated():
  m = points()
  run, keys = m.sample_fn(4, steps=3), jax.random.split(jax.random.key(1), 2)
  each = jax.jit(jax.vmap(run, (None, 0, None)))(m.params, keys, {})
  near(each[1], m.sample(keys[1], 4, steps=3))
  total = lambda p, x: jnp.sum(run(p, keys[0], {"noise": x}) ** 2)
  weights, slope = jax.jit(jax.grad(total, (0, 1)))(m.params, X)
  _, along = jax.jit(lambda x: jax.jvp(lambda x: total(m.params, x), (x,), (X,)))(X)
  near(jnp.sum(slope * X), along, 1e-4)
  assert all(jnp.isfinite(w).all() for w in jax.tree.leaves(weights))


def test_a_path_is_what_the_sampler_visits():
  m = points()
  path = m.path(steps=5)
  assert path.t.shape == (5,) and np.all(np.diff(path.sigma) < 0)
  D = m.denoiser(Y, by="noise")
  x = m.model.sampler(D, path.sigma[0] * X, path, 5, jax.random.split(jax.random.key(0), 4),
                      process=m.process)  # fmt: skip
  near(x, m.sample(0, 4, Y, steps=5, noise=X))


def test_guides_take_part_in_the_denoiser():
  plain = build(POINTS)
  net = dict(name="nets.mlp.Denoiser", width=8, depth=1)
  worse = untrained.sampler_of(Guided(plain, build(POINTS | dict(net=net, classes=0))), classes=3)
  noise = worse.process(0.5)
  good = mean(plain.denoiser(worse.state, {"x": X, "y": jnp.asarray(Y)})(X, noise))
  far = [worse.denoiser(Y, auto=a, by="noise")(X, noise) for a in (1.0, 2.0, 3.0)]
  near(far[0], good)
  near(far[2] - far[1], far[1] - far[0], 1e-4)
  assert not np.allclose(far[0], far[1])


def test_a_classifier_moves_the_denoiser_by_its_gradient():
  judge = Classifier(TwoTimes(3), process=build(VP["process"]), precond=build(VP["precond"]))
  m = untrained.sampler_of(Guided(build(POINTS), judge), classes=3)
  t = m.process(0.5)
  still, moved = (m.denoiser(1, scale=s, by="noise")(X, t) for s in (0.0, 1.0))
  theirs = m.state.replace(params={"net": m.state.params["guide"]}, stats={})
  shift = t.sigma**2 / t.alpha * judge.gradient(theirs, jnp.ones(4, jnp.int32))(X, t)
  near(moved - still, shift, 1e-4)
  near(m.denoiser(1, by="t")(X, jnp.full(4, 0.5)), moved)


def test_a_mean_flow_denoises_by_its_velocity():
  m, t = untrained.sampler_of(MeanFlow(TwoTimes())), jnp.float32(0.4)
  near(m.denoiser(by="t")(X, t), X - t * m.model.u(m.state, X, (t, 0.0)))
  near(m.sample(0, 4, steps=1, noise=X), m.sample_fn(4, steps=1)(m.params, 0, {"noise": X}))


def test_a_generator_and_its_noise():
  m, z = gan(), np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
  x = m.generator(z, [0, 1, 2, 0])
  near(x, m.sample(0, 4, [0, 1, 2, 0], noise=z))
  near(m.generator(2 * z, 0), m.sample(0, 4, 0, noise=z, temperature=2.0))
  logits = m.discriminator(x, 1)
  assert logits.shape == (4,)
  near(logits, m.model.disc.apply(m.params["disc"], x, y=jnp.ones(4, jnp.int32)))
  slope = jax.grad(lambda z: m.discriminator(m.generator(z, 0), 0).sum())(z)
  assert slope.shape == z.shape and np.abs(slope).max() > 0


def test_a_generator_of_styles_has_two_halves():
  disc, rule = (build(part) for part in (GAN["disc"] | dict(classes=0), GAN["rule"]))
  m = untrained.sampler_of(gan_models.GAN(Styles(), disc, rule, z_dim=4))
  z, keys = jnp.ones((4, 4)), jax.random.split(jax.random.key(2), 4)
  w = m.mapping(z, psi=0.5)
  assert w.shape == (4, 2, 3)
  near(m.synthesis(w), m.generator(z, psi=0.5))
  near(m.synthesis(w, key=keys), m.generator(z, key=keys, psi=0.5))
  assert not np.allclose(m.synthesis(w), m.synthesis(w, key=1))
  assert m.features(X).shape == (4, 8)  # of its last layer, without an `embed`


def test_translators_make_images_of_images():
  rule, shape = build(dict(name="adversarial.patch_rules.squares")), (4, 4, 1)
  source = np.random.default_rng(3).integers(0, 256, (2, *shape), np.uint8)
  pix, cycle = (
    untrained.sampler_of(kind(Translator(), Patches(), rule), shape, dtype="uint8")
    for kind in (Pix2Pix, CycleGAN)
  )
  np.testing.assert_array_equal(pix.as_data(pix.generator(source)), pix.sample(0, 2, source=source))
  there, back = (cycle.generator(source, backwards=b) for b in (0.0, 1.0))
  np.testing.assert_array_equal(cycle.as_data(back), cycle.sample(0, 2, source=source, backwards=1))
  assert pix.discriminator(there, source=source).shape == (2, 4, 4)
  logits = [cycle.discriminator(there, kind=kind) for kind in "ab"]
  assert not np.allclose(*logits) and not np.allclose(there, back)
  with pytest.raises(UserError, match="takes source, too"):
    pix.discriminator(there)


def test_an_encoder_for_a_gan_has_the_gans_nets():
  gan = build(games.SPECS["gan"])
  m = untrained.sampler_of(AnoGANEncoder(nn.Dense(2), gan))
  z = m.encode(X)
  near(m.decode(z), m.generator(z))
  near(m.discriminator(X), gan.disc.apply(m.params["disc"], X))
  near(m.sample(0, 4, noise=np.asarray(z)), m.generator(z))


def test_a_codec_reads_and_writes():
  m = vae()
  z, std = m.model.moments(m.state, X)
  near(m.encode(X), z)
  drawn = m.encode(X, key=5)
  assert np.abs((drawn - z) / std).max() < 5 and not np.allclose(drawn, z)
  assert m.latent_shape == m.noise_shape == (2,)
  near(m.decode(z), m.model.decode(m.state, z))
  near(m.encode(X, labels=1), z)  # which nobody reads
  near(m.sample(0, 4, noise=np.asarray(z)), m.decode(z))


def test_an_autoencoder_begins_with_latents_and_judges_patches():
  m = untrained.sampler_of(Autoencoder(Halves(), KL(), Patches()), (4, 4, 1))
  z = np.ones((2, *m.noise_shape), np.float32)
  assert m.noise_shape == (2, 2, 3)
  near(m.sample(0, 2, noise=z, temperature=0.5), m.decode(z / 2))
  assert m.discriminator(np.zeros((2, 4, 4, 1), np.float32)).shape == (2, 4, 4)


def test_latents_are_as_the_denoiser_sees_them():
  m = latents()
  codec = untrained.sampler_of(m.model.codec)
  inner = {"net": m.params["codec"]["params"]["net"]}
  want = codec.encode(X, params={"net": {"params": inner["net"]}})
  z = m.encode(X)
  near(z, 2 * (want - 0.5))
  near(m.decode(z), codec.decode(want, params={"net": {"params": inner["net"]}}))
  assert m.denoiser(0)(z, 1.0).shape == z.shape
  noise = np.ones((4, 2), np.float32)
  end = m.path(steps=1).sigma[0] * noise  # one step: the noisiest level's estimate
  D = m.denoiser(Y, by="noise")(end, jax.tree.map(lambda a: a[0], m.path(steps=1)))
  near(m.sample(0, 4, Y, steps=1, noise=noise), m.decode(D), 1e-4)


def test_stages_of_a_cascade_are_models():
  low, high = (build(games.SPECS["unet"]) for _ in range(2))
  m = untrained.sampler_of(
    Cascade((low, high), ((4, 4, 1), (8, 8, 1)), (3, 3), np.dtype("uint8")), (8, 8, 1), 3, "uint8"
  )
  assert [s.shape for s in m.stages] == [(4, 4, 1), (8, 8, 1)]
  assert same(m.stages[1].params["net"], m.params["1.net"])
  with pytest.raises(UserError, match=r"m.stages\[0\].denoiser"):
    m.denoiser()


def test_a_discriminator_comes_from_the_checkpoint(tmp_path):
  c = config.load("configs/points_gan.py:debug")
  c.steps = 2
  state = train.train(c, str(tmp_path), quiet=True)
  m = jaxgen.load(str(tmp_path))
  assert set(m.params) == {"gen"}
  logits = jax.jit(m.discriminator)(X)  # read while it is traced
  near(logits, m.model.disc.apply(state.variables("disc"), X))
  assert same(m.variables("disc")["params"], state.params["disc"])
  params = m.params | {"disc": m.variables("disc")}
  near(jax.jit(lambda p: m.discriminator(X, params=p))(params), logits)
  with pytest.raises(UserError, match="give m.params"):
    m.discriminator(X, params=m.params)
  with pytest.raises(UserError, match="no weights of a group 'dics'"):
    m.variables("dics")


@pytest.mark.parametrize(
  "model, what, why",
  [
    (points, lambda m: m.denoiser(by="time"), "by=time: want one of sigma, t, noise"),
    (points, lambda m: m.denoiser(guidence=2), "no option 'guidence'; did you mean 'guidance'"),
    (points, lambda m: m.denoiser(3)(X, 1.0), "labels run from 0 to 2, got 3"),
    (points, lambda m: m.denoiser([0, 1])(X, 1.0), "2 labels for 4 examples"),
    (points, lambda m: m.generator(X), "a Diffusion has no generator"),
    (points, lambda m: m.discriminator(X), "a Diffusion has no discriminator"),
    (points, lambda m: m.encode(X), "a Diffusion has no `encode`: it has no latents but x"),
    (points, lambda m: m.sample_fn(0), "batch=0"),
    (points, lambda m: m.sample_fn(2, stepps=1), "no knob 'stepps'"),
    (points, lambda m: m.sample_fn(2)(m.params, 0, {"stpes": 1}), "no option 'stpes'"),
    (points, lambda m: m.variables("disc"), "W"),
    (gan, lambda m: m.generator(X), "this model knows 3 classes: give labels"),
    (gan, lambda m: m.denoiser(), "a GAN has no denoiser"),
    (gan, lambda m: m.net, "look at m.model.gen"),
    (gan, lambda m: m.discriminator(np.zeros((2, 3)), 0), "want .n, 2., float32 in"),
    (gan, lambda m: m.mapping(X, 0), "Generator has no `map`"),
    (gan, lambda m: m.encode(X), "a GAN has no `encode`: jaxgen.sampling.projection"),
    (gan, lambda m: m.sample(0, 2, noise=X), "noise is .4, 2.: want .n, 4."),
    (vae, lambda m: m.process, "a VAE has no process"),
  ],
)
def test_what_a_model_lacks_is_said_in_one_line(model, what, why):
  with pytest.raises(UserError, match=why) as error:
    what(model())
  assert "\n" not in str(error.value)
