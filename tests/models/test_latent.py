"""Models of latents: what they see, what stays frozen, workdirs of both."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import EDM, SPECS, apart, filled, jit, same

import jaxgen
from jaxgen import config, core, sharding, train
from jaxgen.checkpoint import pretrained, restore
from jaxgen.config import build
from jaxgen.data.points import open_points
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, open_data
from jaxgen.keys import example_keys, fold
from jaxgen.models import latent
from jaxgen.sampling import trained

pytestmark = pytest.mark.usefixtures("unoptimised")
N, SEED = 8, jax.random.key(3)
KEYS = example_keys(SEED, N)
MLP = dict(name="nets.mlp.Denoiser", width=16, depth=1, classes=3)
GAN = dict(
  name="models.gan.GAN",
  z_dim=2,
  classes=3,
  gen=dict(name="nets.mlp.Generator", width=16, depth=1, dims=4, classes=3),
  disc=dict(name="nets.mlp.Discriminator", width=16, depth=1, classes=3),
  rule=dict(name="adversarial.losses.nonsaturating"),
)
INNER = {
  "diffusion": dict(name="models.diffusion.Diffusion", net=MLP, **EDM, classes=3, steps=3),
  "gan": GAN,
  "vae": dict(name="models.vae.VAE", net=dict(name="nets.mlp.Codec", dims=4, classes=3), classes=3),
}


def images(n=N, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.integers(0, 256, (n, 8, 8, 1), np.uint8)
  return {"x": jnp.asarray(x), "y": jnp.arange(n, dtype=jnp.int32) % 3}


@functools.cache
def latents(kind, **fields):
  """-> a model of the VAE's latents, and its state with random weights."""
  spec = dict(name="models.latent.Latent", codec=SPECS["vae"], model=INNER[kind])
  model = build(spec | fields)
  init = core.make_init(model, {p.moves: optax.adam(1e-2) for p in model.players}, ("main",))
  return model, filled(jax.eval_shape(init, images(), SEED))


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("kind", sorted(INNER))
def test_a_loss_is_that_of_the_model_on_latents(kind, mode):
  model, state = latents(kind, mode=mode, scale=1.7)
  batch = core.on_device(images())
  frozen = state.replace(params=state.params["codec"], stats=state.stats["codec"])
  key = None if mode else fold(KEYS, latent.ENCODE)
  z = model.codec.encode(frozen, batch["x"], key, batch["y"])
  assert z.shape == (N, 4)
  assert len(model.players) == len(model.model.players)
  for ours, theirs in zip(model.players, model.model.players, strict=True):
    assert ours[:2] == theirs[:2]
    got, want = (
      jit(p.loss)(state, b, KEYS) for p, b in ((ours, batch), (theirs, batch | {"x": 1.7 * z}))
    )
    assert apart(got[0], want[0]) < 1e-5
    assert apart(got[1][1], want[1][1]) < 1e-4
  assert model.knobs == model.model.knobs
  assert model.nfe() == model.model.nfe()


def test_the_codec_never_moves():
  """Nor has it an optimiser's state, or averages; the model's groups do."""
  model, state = latents("diffusion")
  tx = {"net": optax.adam(1e-2)}
  assert set(state.opt) == set(state.ema["main"]) == {"net"}
  assert set(state.params) == set(model.sampled) == {"net", "codec"}
  step = jit(core.make_step(model, tx, {"main": lambda step: 0.5}), static_argnums=0)
  new = state
  for _ in range(3):
    new, metrics = step((0,), new, images(), SEED)
    assert np.isfinite(metrics["net/loss"])
  assert same(new.params["codec"], state.params["codec"])
  assert same(new.stats, state.stats)
  assert not same(new.params["net"], state.params["net"])


@pytest.mark.parametrize("kind", ["diffusion", "vae"])
def test_a_sample_is_a_decoded_one(kind):
  model, state = latents(kind)
  state.stats["codec"]["latents"] |= {"var": jnp.float32(4)}
  batch = core.on_device(images())
  frozen = latent.codec_state(state)
  z = model.model.sample(state, batch | {"x": jnp.zeros((N, 4))}, KEYS)
  want = model.codec.decode(frozen, 2 * z, batch["y"])  # a scale of 1 / 2
  assert apart(jit(model.sample)(state, batch, KEYS), want) < 1e-4
  if kind == "diffusion":  # begins with noise shaped like latents
    own = batch | {"noise": jnp.ones((N, 4))}
    z = model.model.sample(state, own | {"x": jnp.zeros((N, 4))}, KEYS)
    want = model.codec.decode(frozen, 2 * z, batch["y"])
    assert apart(jit(model.sample)(state, own, KEYS), want) < 1e-4


def test_the_scale_makes_the_variance_one():
  """Over all batches measured, of other means and variances each."""
  model, state = latents("diffusion", mode=True)
  state.stats["codec"]["latents"] = {"mean": 0.0, "var": 1.0, "batches": 0}
  batches = [core.on_device(images(seed=i)) for i in range(3)]
  batches[1]["x"] *= 3
  batches[2]["x"] += 2
  all_z = []
  for batch in batches:
    state = state.replace(stats=jit(model.measure)(state, batch, KEYS))
    all_z.append(model.encoded(state, batch, KEYS)["x"] / model.factor(state))
  assert abs(np.std(np.stack(all_z)) * model.factor(state) - 1) < 1e-4
  assert dataclasses.replace(model, scale=0.2).measure is None


def test_codes_are_not_scaled():
  """Whole numbers reach a prior as they are, as pytrees."""

  class Prior:
    players, sampled, knobs = (), (), {}

    def init(self, batch, key):
      return {}, {}

    def sample(self, state, batch, key):
      return jax.tree.map(lambda z: z + 1, batch["x"])

  spec = config.load("configs/vqvae2.py:debug").model
  model = latent.Latent(build(spec), Prior())
  state = filled(jax.eval_shape(core.make_init(model, {}, ()), images(), SEED))
  batch = core.on_device(images())
  z = model.encoded(state, batch, KEYS)["x"]
  assert {k: (v.shape, v.dtype) for k, v in z.items()} == {
    "top": ((N, 2, 2), jnp.int32),
    "bottom": ((N, 4, 4), jnp.int32),
  }
  assert same(z, model.codec.encode(latent.codec_state(state), batch["x"]))
  assert same(model.moments(state, batch, KEYS), state.stats)
  want = model.codec.decode(latent.codec_state(state), jax.tree.map(jnp.ones_like, z))
  assert apart(model.sample(state, batch, KEYS), want) < 1e-5


def test_what_does_not_go_together():
  spec = dict(name="models.latent.Latent", codec=SPECS["vae"], model=INNER["diffusion"])
  with pytest.raises(UserError, match="codec is a Diffusion, which is no codec"):
    build(spec | dict(codec=INNER["diffusion"]))
  with pytest.raises(
    UserError, match=r"codec.classes=3, but config.model.model.classes=0: .* equal"
  ):
    build(spec | dict(model=INNER["diffusion"] | dict(classes=0)))
  few = config.load("configs/consistency.py:digits-ect").model.to_dict()
  with pytest.raises(UserError, match="model.teacher: a model of latents takes no teacher yet"):
    build(spec | dict(model=few, codec=SPECS["vae"] | dict(classes=10)))
  c = config.load("configs/digits_latent.py:debug").unlock()
  c.model.model.net.labels = 10
  with pytest.raises(UserError, match=r"config.model.model.net.labels=10: want 11"):
    Experiment.of(c).abstract(open_data(c), sharding.make_mesh())


@pytest.mark.parametrize(
  ("arg", "codec", "shape"),
  [("", "ldm_kl.py:digits", (1, 4, 4, 4)), (":vae", "digits_vae.py", (1, 16))],
)
def test_presets_fit_their_data_and_codecs(arg, codec, shape):
  c = config.load(f"configs/digits_latent.py{arg}")
  assert c.model.codec.net == config.load(f"configs/{codec}").model.net
  experiment, source = Experiment.of(c), open_data(c)
  state = experiment.abstract(source, sharding.make_mesh())
  batch = {"x": jnp.zeros((1, *source.shape)), "y": jnp.zeros(1, jnp.int32)}
  assert jax.eval_shape(experiment.model.blank, state, batch)["x"].shape == shape
  assert set(state.opt) == {"net"} and set(state.params) == {"net", "codec"}


# Workdirs.


def settings(name, **model):
  c = config.load(f"configs/{name}").unlock()
  c.model.update(model)
  c.model.get("codec", c.model).net.width = 4
  c.optim.net.decay = "constant"
  c.steps, c.batch, c.checkpoint.every = 4, 16, 2
  c.log.update(every=2, pictures=0)
  return c


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  """A codec's, and that of a model of its latents."""
  folder = tmp_path_factory.mktemp("latent")
  codec, own = folder / "K", folder / "W"
  train.train(settings("digits_vae.py"), str(codec), quiet=True)
  c = settings("digits_latent.py:vae", codec_workdir=str(codec))
  c.model.model.net.update(width=16, depth=1)
  return codec, own, c, train.train(c, str(own), quiet=True)


def test_the_codec_is_read_once(workdirs, tmp_path):
  """Averaged; resumed without its workdir, a training ends the same."""
  codec, _, c, state = workdirs
  _, saved, _ = restore.restore_subset(
    codec, lambda meta: restore.abstract_leaves(meta, ["ema/main/net"])
  )
  assert same(state.params["codec"]["net"], saved["ema"]["main"]["net"])
  assert state.stats["codec"]["latents"]["batches"] == 8
  c = c.copy_and_resolve_references()
  c.steps = 2
  train.train(c, str(tmp_path), quiet=True)
  c.steps, c.model.codec_workdir = 4, "/moved/away"
  assert same(train.train(c, str(tmp_path), quiet=True), state)


def test_a_workdir_of_latents_is_like_any_other(workdirs):
  _, own, _, state = workdirs
  model = jaxgen.load(str(own), sampler="ddim")
  assert "churn" not in model.model.knobs and "eta" in model.model.knobs
  assert model.card["sampler"] == "diffusion.samplers.ancestral"
  x = model.sample(0, 3, labels=[1, 2, 3], steps=2, guidance=2.0)
  assert x.shape == (3, 8, 8, 1) and x.dtype == np.uint8
  assert same(model.state.params["codec"], state.params["codec"])
  again = model.sample(0, 3, labels=[1, 2, 3], steps=2, guidance=2.0, batch=3)
  assert same(x, again)


def test_a_worse_model_of_the_same_latents_guides(workdirs):
  """Its own weights are no guide; older ones are, and others' latents are refused."""
  _, own, _, _ = workdirs
  sample = lambda model, **knobs: model.sample(0, 4, labels=[1, 2], steps=2, **knobs)
  plain, alone = jaxgen.load(str(own)), jaxgen.load(str(own), worse=str(own))
  older = jaxgen.load(str(own), worse=str(own), guide_step=2)
  assert same(sample(alone, auto=3.0), sample(plain))
  assert same(sample(older, auto=1.0), sample(plain))
  assert not same(sample(older, auto=3.0), sample(plain))
  ours = trained.load_trained(str(own))
  other = ours._replace(model=dataclasses.replace(ours.model, mean=1.0))
  with pytest.raises(UserError, match="other latents"):
    trained.guided(ours, other, "worse")
  with pytest.raises(UserError, match="the model is of latents"):
    trained.guided(ours, ours._replace(model=ours.model.model), "worse")


def test_codecs_that_do_not_fit(workdirs, tmp_path):
  codec, own, c, _ = workdirs
  model, digits = Experiment.of(c).model, open_data(c)
  other = lambda **fields: dataclasses.replace(model, **fields)
  read = pretrained.read
  with pytest.raises(UserError, match="names no workdir: train the codec first, .*codec_workdir=W"):
    read(other(codec_workdir=""), digits)
  with pytest.raises(UserError, match="codec_workdir=.*none: there is no folder"):
    read(other(codec_workdir=str(tmp_path / "none")), digits)
  with pytest.raises(UserError, match="a Latent was trained there, which is no codec"):
    read(other(codec_workdir=str(own)), digits)
  another = build(config.load("configs/digits_latent.py:debug").model.codec)
  with pytest.raises(UserError, match="a VAE was trained there, .* of another kind, Autoencoder"):
    read(other(codec=another), digits)
  wide = dataclasses.replace(model.codec, net=model.codec.net.clone(width=32))
  with pytest.raises(UserError, match=r"trained with net.width=4, .*net.width is 32: make them"):
    read(other(codec=wide), digits)
  with pytest.raises(UserError, match=r"was trained on digits, \(8, 8, 1\), and .* holds \(2,\)"):
    read(model, open_points("ring8", "train"))
  letters = types.SimpleNamespace(
    name="letters", shape=(8, 8, 1), dtype=np.uint8, classes=26, class_names=()
  )
  with pytest.raises(UserError, match="decodes by the labels of digits, and letters has others"):
    read(model, letters)
  with pytest.raises(UserError, match="codec_workdir names no workdir"):
    train.train(settings("digits_latent.py:vae"), str(tmp_path / "W"), quiet=True)
  assert not (tmp_path / "W").exists()


def test_channels_may_have_scales_and_means_of_their_own():
  mean, scale = (1.0, -2.0, 0.5, 3.0), (0.1, 0.2, 0.4, 0.8)
  model, state = latents("diffusion", mode=True, mean=mean, scale=scale)
  batch = core.on_device(images())
  z = model.latents_of(state, batch)
  seen = model.encoded(state, batch, KEYS)["x"]
  np.testing.assert_allclose(seen, (z - np.float32(mean)) * np.float32(scale), rtol=1e-5, atol=1e-6)
  blank = batch | {"x": jnp.zeros((N, 4))}
  z = model.model.sample(state, blank, KEYS) / np.float32(scale) + np.float32(mean)
  want = model.codec.decode(latent.codec_state(state), z, batch["y"])
  assert apart(jit(model.sample)(state, batch, KEYS), want) < 1e-4
