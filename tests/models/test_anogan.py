"""f-AnoGAN's encoder: its loss, what is frozen, and where the GAN comes from."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import filled, jit, same

from jaxgen import config, core, train
from jaxgen.checkpoint import pretrained
from jaxgen.config import build
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.keys import example_keys
from jaxgen.models.anogan_encoder import critic, generated

pytestmark = pytest.mark.usefixtures("unoptimised")
SPEC = config.load("configs/anogan.py:debug").model.to_dict()
N = 6


@pytest.fixture(scope="module")
def game():
  """-> model, a state with every weight away from zero, a batch."""
  model = build(SPEC)
  x = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1), np.uint8)
  init = core.make_init(model, {"net": optax.sgd(0.1)}, ("main",))
  state = jax.eval_shape(init, {"x": x}, jax.random.key(0))
  return model, filled(state), {"x": x}


def test_the_loss_by_hand_and_who_moves(game):
  model, state, batch = game
  x = core.on_device(batch)["x"]
  key = example_keys(jax.random.key(1), N)
  (loss, (_, info)), grads = jit(
    jax.value_and_grad(
      lambda net: model.loss(state.replace(params=state.params | {"net": net}), {"x": x}, key),
      has_aux=True,
    )
  )(state.params["net"])
  gan, net = model.gan, model.net
  z = net.apply(state.variables("net"), x)
  again = gan.gen.apply(state.variables("gen"), z)
  features = lambda x: gan.disc.apply(state.variables("disc"), x, method="embed")
  pixels = jnp.mean((again - x) ** 2)
  by_features = jnp.mean((features(again) - features(x)) ** 2)
  np.testing.assert_allclose(loss, pixels + model.kappa * by_features, rtol=1e-5)
  np.testing.assert_allclose(info["features"], by_features, rtol=1e-5)
  assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))
  # Nobody else moves; what samples are the generator's.
  assert [p.moves for p in model.players] == ["net"]
  assert set(state.opt) == {"net"} and set(state.ema["main"]) == {"net"}
  assert model.decode(state, model.encode(state, x)).shape == x.shape
  np.testing.assert_array_equal(generated(gan, state, z), model.decode(state, z))


def test_features_of_a_net_without_embed_are_what_its_last_layer_reads():
  disc = build(dict(name="nets.convs.Discriminator", width=4))
  gan = types.SimpleNamespace(disc=disc, conditions=lambda batch: {})
  x = jnp.asarray(np.random.default_rng(0).normal(size=(N, 8, 8, 1)), jnp.float32)
  params = disc.init(jax.random.key(0), x)["params"]
  state = core.State(0, {"disc": params}, {}, {}, {}, 0)
  features = critic(gan, state)(x)
  last = params["Dense_1"]
  logits = disc.apply({"params": params}, x)
  np.testing.assert_allclose(features @ last["kernel"][:, 0] + last["bias"], logits, rtol=1e-4)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A GAN of one step."""
  c = config.load("configs/anogan.py:debug-gan")
  c.steps, c.log.pictures = 1, 0
  folder = tmp_path_factory.mktemp("gan") / "g"
  train.train(c, str(folder), quiet=True)
  return folder


def test_it_begins_with_the_gan_of_a_workdir(workdir, game):
  model = build(SPEC | {"gan_workdir": str(workdir)})
  source = open_source("digits")
  params, stats = pretrained.read(model, source)
  assert set(params) == set(stats | {"disc": 0}) == {"gen", "disc"}
  state = pretrained.fill(model, game[1], source)
  assert same(state.params["disc"], params["disc"]) and same(state.params["gen"], params["gen"])
  assert same(state.stats["gen"], stats["gen"])
  assert same(state.params["net"], game[1].params["net"])


@pytest.mark.parametrize(
  "change, says",
  [
    ({}, "names no workdir: train the GAN first"),
    ({"gan_workdir": "nowhere"}, "nowhere"),
    ({"gan": {"z_dim": 9}}, "that GAN has z_dim=8, and config.model.gan.z_dim is 9"),
    ({"gan": {"disc": {"widths": (8, 16)}}}, "config.model.gan.disc.widths is"),
    ({"source": "stacked_digits"}, r"on digits, \(8, 8, 1\), and stacked_digits holds"),
  ],
)
def test_a_gan_that_does_not_fit(change, says, workdir):
  gan, more = SPEC["gan"], change.get("gan", {})
  gan = gan | {k: v for k, v in more.items() if k != "disc"}
  gan["disc"] = gan["disc"] | more.get("disc", {})
  place = change.get("gan_workdir", "" if not change else str(workdir))
  source = open_source(change.get("source", "digits"))
  with pytest.raises(UserError, match=says):
    pretrained.read(build(SPEC | {"gan": gan, "gan_workdir": place}), source)


def test_labels_are_refused():
  gan = SPEC["gan"] | {"classes": 10}
  with pytest.raises(UserError, match="an encoder knows no labels"):
    build(SPEC | {"gan": gan})
