"""Priors of two levels: likelihoods by enumeration, draws by likelihoods."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import jit

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.keys import example_keys

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
TINY = dict(
  name="nets.pixelsnail.PixelSNAIL",
  codes=2,
  width=16,
  side=3,
  blocks=1,
  res_blocks=1,
  hidden=4,
  cond_width=4,
  labels=2,
  dropout=0.0,
)
LEVEL = dict(name="models.autoregressive.Autoregressive", classes=2)
TOP = LEVEL | dict(net=TINY | dict(shape=(1, 1)))
BOTTOM = LEVEL | dict(net=TINY | dict(shape=(2, 2), cond_blocks=1, attention=False))
SPEC = dict(name="models.hierarchy.Hierarchy", top=TOP, bottom=BOTTOM)
MODEL = build(SPEC)
ALL = np.array(list(itertools.product(range(2), repeat=5)), np.int32)
N = 2000


def maps(rows, label=1):
  """Rows of five codes -> a batch of both levels."""
  x = {"top": rows[:, :1].reshape(-1, 1, 1), "bottom": rows[:, 1:].reshape(-1, 2, 2)}
  return {"x": jax.tree.map(jnp.asarray, x), "y": jnp.full(len(rows), label)}


@pytest.fixture(scope="module")
def state():
  init = core.make_init(MODEL, {level: optax.adam(1e-3) for level in MODEL.sampled}, ())
  state = jax.jit(init)(maps(ALL), KEY)
  rough = lambda a: a + 0.5 * jax.random.normal(jax.random.key(a.size), a.shape)
  return state.replace(params=jax.tree.map(rough, state.params))


def test_likelihoods_of_all_codes_sum_to_one(state):
  bits = jit(MODEL.bits_per_dim)(state, maps(ALL))
  p = 2.0 ** -(bits["top"] + 4 * bits["bottom"])
  assert float(jnp.sum(p)) == pytest.approx(1, abs=1e-5)
  assert float(jnp.max(p)) > 2 / 32  # not all alike


def test_codes_are_drawn_as_often_as_they_are_probable(state):
  sample = jit(MODEL.sample)
  x = sample(state, maps(np.zeros((N, 5), np.int32)), example_keys(KEY, N))
  rows = np.concatenate([np.reshape(x[level], (N, -1)) for level in ("top", "bottom")], 1)
  counts = np.bincount(rows @ (2 ** np.arange(5))[::-1], minlength=32)
  bits = jit(MODEL.bits_per_dim)(state, maps(ALL))
  p = np.asarray(2.0 ** -(bits["top"] + 4 * bits["bottom"]))
  assert (np.abs(counts - N * p) < 5 * np.sqrt(N * p) + 1).all()
  cold = sample(state, maps(np.zeros((N, 5), np.int32)), example_keys(KEY, N), temperature=0.0)
  assert all((c == c[:1]).all() for c in cold.values())


def test_a_level_learns_from_its_own_codes_alone(state):
  """The top's loss does not see the bottom, in weights or codes."""
  keys, batch = example_keys(KEY, len(ALL)), maps(ALL)
  for player in MODEL.players:
    loss = lambda params, loss=player.loss: loss(state.replace(params=params), batch, keys)[0]
    slopes = jax.jit(jax.grad(loss))(state.params)
    moved = {g: any(np.any(a) for a in jax.tree.leaves(t)) for g, t in slopes.items()}
    assert moved == {level: level == player.moves for level in ("top", "bottom")}
  other = {"x": batch["x"] | {"bottom": 1 - batch["x"]["bottom"]}, "y": batch["y"]}
  top = jit(MODEL.players[0].loss)
  assert top(state, batch, keys)[0] == top(state, other, keys)[0]


def test_knobs_of_both_levels():
  assert MODEL.expand({"temperature": 0.5, "temperature_top": 2.0, "top_k_bottom": 3.0}) == {
    "temperature_top": 2.0,
    "temperature_bottom": 0.5,
    "top_k_bottom": 3.0,
  }
  assert set(MODEL.knobs) == {"temperature_top", "temperature_bottom", "top_k_top", "top_k_bottom"}


@pytest.mark.parametrize("level", ["top", "bottom"])
def test_misfits_are_one_line(level):
  with pytest.raises(UserError, match=r"^config\.model: .*cond_blocks|make them equal$"):
    build(SPEC | {level: BOTTOM if level == "top" else BOTTOM | dict(classes=0)})


@pytest.mark.parametrize(
  ("arg", "top", "bottom"), [("ffhq", 84_873_280, 89_762_816), ("imagenet", 93_065_280, 97_954_816)]
)
def test_published_sizes(arg, top, bottom):
  c = config.load(f"configs/vqvae2_prior.py:{arg}")
  batch = {"x": jnp.zeros((1, 256, 256, 3)), "y": jnp.zeros(1, jnp.int32)}
  params, _ = jax.eval_shape(build(c.model).init, batch, KEY)
  count = {g: sum(x.size for x in jax.tree.leaves(t)) for g, t in params.items()}
  assert count == {"top": top, "bottom": bottom, "codec": 1_388_867}
