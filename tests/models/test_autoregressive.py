"""Priors of codes: likelihoods by enumeration, draws by likelihoods."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import core
from jaxgen.config import build
from jaxgen.keys import example_keys
from jaxgen.models.autoregressive import draw

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
NET = dict(
  name="nets.pixelsnail.PixelSNAIL",
  shape=(2, 2),
  codes=3,
  width=16,
  side=3,
  blocks=1,
  res_blocks=1,
  hidden=4,
  cond_blocks=1,
  cond_width=4,
  labels=2,
  dropout=0.0,
)
MODEL = build(dict(name="models.autoregressive.Autoregressive", net=NET, classes=2))
MAPS = np.array(list(itertools.product(range(3), repeat=4)), np.int32).reshape(-1, 2, 2)
N = 3000


def conditions(n, label):
  return {"y": jnp.full(n, label), "top": jnp.full((n, 1, 1), 1)}


@pytest.fixture(scope="module")
def state():
  """A state with weights of which none is zero."""
  params, stats = jax.eval_shape(MODEL.init, {"x": MAPS[:1], **conditions(1, 0)}, KEY)
  rng = np.random.default_rng(0)

  def fresh(path, s):
    z = np.float32(rng.normal(size=s.shape))
    return 1 + 0.3 * z if path[-1].key == "scale" else z if len(s.shape) > 1 else 0.3 * z

  params = jax.tree_util.tree_map_with_path(fresh, params)
  return core.State(jnp.int32(0), jax.tree.map(jnp.asarray, params), stats, {}, {}, None)


@pytest.fixture(scope="module")
def bits(state):
  """-log2 p of all maps, for each label, [2, 81]."""
  f = jax.jit(MODEL.bits_per_dim)
  batch = lambda y: {"x": jnp.asarray(MAPS), **conditions(len(MAPS), y)}
  return np.stack([4 * np.float64(f(state, batch(y))) for y in (0, 1)])


@pytest.fixture(scope="module")
def sample(state):
  """(label, keys, knobs) -> N maps, by one program; and how often it was traced."""
  traces = []

  @jax.jit
  def run(batch, keys, knobs):
    traces.append(1)
    return MODEL.sample(state, batch, keys, **knobs)

  def sample(y, keys, **knobs):
    knobs = {k: jnp.float32(v) for k, v in (MODEL.knobs | knobs).items()}
    return np.asarray(run({"x": jnp.zeros((N, 2, 2)), **conditions(N, y)}, keys, knobs))

  return sample, traces


def test_probabilities_of_all_maps_add_up_to_one(bits):
  p = np.exp2(-bits)
  np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
  assert np.abs(p[0] - p[1]).sum() > 0.05  # the label has a say
  assert p.max() > 3 / 81


def test_maps_are_drawn_as_often_as_they_are_likely(bits, sample):
  p = np.exp2(-bits[1])
  x = sample[0](1, example_keys(KEY, N))
  assert x.dtype == np.int32
  counts = np.bincount(x.reshape(N, 4) @ [27, 9, 3, 1], minlength=81)
  assert (np.abs(counts - N * p) < 5 * np.sqrt(N * p) + 1).all()
  often = N * p > 5
  assert often.sum() > 10
  assert np.sum((counts - N * p)[often] ** 2 / (N * p)[often]) < 80 + 5 * np.sqrt(160)


def test_knobs_are_traced_and_the_likeliest_codes_are_cold(bits, sample):
  run, traces = sample
  keys = example_keys(KEY, N)
  one = run(0, keys, top_k=1)
  np.testing.assert_array_equal(one, run(0, keys, temperature=0))
  assert (one == one[0]).all()
  two = run(0, keys, top_k=2)
  assert 1 < len(np.unique(two.reshape(N, 4), axis=0)) <= 16
  everything = run(0, keys, top_k=3)
  np.testing.assert_array_equal(everything, run(0, keys))
  # Every example is drawn by its own key alone.
  np.testing.assert_array_equal(everything[::-1], run(0, keys[::-1]))
  assert len(traces) == 1


def test_the_loss_is_the_exact_likelihood(state, bits):
  batch = {"x": jnp.asarray(MAPS), **conditions(len(MAPS), 1)}
  loss, (_, info) = jax.jit(MODEL.loss)(state, batch, example_keys(KEY, len(MAPS)))
  np.testing.assert_allclose(info["bits_per_dim"], bits[1].mean() / 4, rtol=1e-5)
  np.testing.assert_allclose(loss, bits[1].mean() / 4 * np.log(2), rtol=1e-5)
  assert MODEL.nfe() == 4 and MODEL.cond == {"top": None}


def test_draws_are_the_inverse_of_sums_of_probabilities():
  p = np.array([0.0, 0.5, 0.2, 0.0, 0.3, 0.0])
  logits = jnp.log(jnp.float32(p))[None].repeat(1000, 0)
  u = (jnp.arange(1000) + 0.5) / 1000
  code = draw(logits, u, 1.0, 0)
  np.testing.assert_allclose(np.bincount(code, minlength=6) / 1000, p, atol=0.0011)
  np.testing.assert_array_equal(code, np.sort(code))
  # At twice the temperature, of three; of the two likeliest alone.
  warm = np.sqrt(p) / np.sqrt(p).sum()
  got = np.bincount(draw(logits, u, 2.0, 3), minlength=6) / 1000
  np.testing.assert_allclose(got, warm, atol=0.0011)
  got = np.bincount(draw(logits, u, 1.0, 2), minlength=6) / 1000
  np.testing.assert_allclose(got, [0, 0.625, 0, 0, 0.375, 0], atol=0.0011)
  ends = jnp.array([0.0, 1 - 2**-24])
  np.testing.assert_array_equal(draw(logits[:2], ends, 1.0, 0), [1, 4])


def test_codes_are_no_images():
  batch = core.on_device({"x": jnp.zeros((1, 2, 2), jnp.uint8), **conditions(1, 0)})
  with pytest.raises(ValueError, match="codes are float32: want int32"):
    MODEL.init(batch, KEY)


def test_the_house_trains_it():
  """Codes that follow from the one before are learned but for the first."""
  net = NET | dict(shape=(2, 3), cond_blocks=0, labels=0, attention=False, dropout=0.1)
  model = build(dict(name="models.autoregressive.Autoregressive", net=net))
  first = np.arange(9) % 3
  x = (first[:, None] + np.arange(6)) % 3
  batch, tx = {"x": jnp.int32(x.reshape(9, 2, 3))}, {"net": optax.adam(0.02)}
  state = jax.jit(core.make_init(model, tx, ("main",)))(batch, KEY)
  step = jax.jit(core.make_step(model, tx, {"main": lambda _: 0.9}), static_argnums=0)
  for _ in range(80):
    state, info = step((0,), state, batch, KEY)
  least = np.log2(3) / 6
  bits = jax.jit(model.bits_per_dim)(state, batch).mean()
  assert least - 1e-3 < bits < least + 0.1
  assert info["net/accuracy"] > 0.8 and state.skips[1] == 0
