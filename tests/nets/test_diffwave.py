"""DiffWave's nets: the numbers of both published codes, exact counts."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen.config import build
from jaxgen.diffusion import precond, samplers, times
from jaxgen.interop import names
from jaxgen.interop.diffwave_names import diffwave_entries
from jaxgen.nets import diffwave
from jaxgen.nets.diffwave import DiffWave, WaveNet

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
SMALL = dict(width=16, layers=6, cycle=3)


def shapes(net, length=1024, **cond):
  x = jnp.zeros((1, length, 1))
  return jax.eval_shape(functools.partial(net.init, KEY, x, jnp.zeros(1)), **cond)["params"]


def count(net, **cond):
  return sum(x.size for x in jax.tree.leaves(shapes(net, **cond)))


def published(net, case, source, prefix="", last=None, **cond):
  """A golden file, and its weights by the rule, as parameters of ours."""
  golden = np.load(GOLDEN / f"{case}.npz")
  manifest = json.loads(str(golden["manifest"]))
  weights = {}
  for name, z, _ in draws(manifest[f"{prefix}seed"], manifest[f"{prefix}state_dict"]):
    if z.ndim >= 2:
      weights[name] = scaled(z)
    else:
      weights[name] = 1 + 0.1 * z if name.endswith(".weight") else np.float32(0.1) * z
    if last and name == last[0]:
      weights[name] *= last[1]
  table = diffwave_entries(shapes(net, **cond), source)
  return golden, manifest, {"params": names.fill(table, weights)}


MEL = jnp.zeros((1, 4, 12))


@functools.cache
def vocoder():
  net = DiffWave(**SMALL, mels=12)
  last = ("output_projection.weight", np.float32(0.5))
  return net, *published(net, "diffwave", "diffwave", last=last, mel=MEL)


def test_the_vocoder_of_lmnt():
  net, golden, _, params = vocoder()
  mel = jnp.moveaxis(golden["spectrogram"], 1, -1)
  x = golden["audio"][..., None]
  F = jit(lambda t: net.apply(params, x, t, mel))
  near(F(golden["t"].astype(np.float32)), golden["output"].swapaxes(1, 2), 2e-5)
  half = np.repeat(golden["t_fractional"], 2)
  near(F(half), golden["output_fractional"].swapaxes(1, 2), 2e-5)
  up = diffwave.Upsampler((16, 16)).apply({"params": params["params"]["upsampler"]}, mel)
  near(up, golden["upsampled"].swapaxes(1, 2), 2e-5)


def test_the_table_of_steps_is_theirs_to_the_last_bit():
  """Its arguments reach a million, so nearly right is wrong."""
  golden = np.load(GOLDEN / "diffwave.npz")
  table = diffwave.step_table(50)
  np.testing.assert_allclose(table[[0, 1, 25, 49]], golden["embedding_table"], rtol=0, atol=1e-6)
  t = jnp.array([3.0, 3.25, 49.0])
  rows = diffwave.between(table, t)
  np.testing.assert_array_equal(rows[0], table[3])
  np.testing.assert_array_equal(rows[2], table[49])
  np.testing.assert_allclose(rows[1], 0.75 * table[3] + 0.25 * table[4], atol=1e-6)


def test_labels_and_nothing():
  net = DiffWave(width=16, layers=6, cycle=6, steps=200, mels=0, labels=10, label_dim=24)
  golden, _, params = published(net, "diffwave_class", "diffwave", y=jnp.zeros(1, int))
  x, t = golden["audio"][..., None], golden["t"].astype(np.float32)
  got = jit(net.apply)(params, x, t, y=jnp.asarray(golden["label"]))
  near(got, golden["output"].swapaxes(1, 2), 2e-5)
  net = DiffWave(width=16, layers=6, cycle=6, steps=200, mels=0)
  golden, _, params = published(net, "diffwave_class", "diffwave", "unconditional_")
  near(jit(net.apply)(params, x, t), golden["unconditional_output"].swapaxes(1, 2), 2e-5)


def test_the_net_of_the_authors():
  """Whose code adds the step's embedding in place."""
  net = WaveNet(**SMALL, skip=24, embed=(32, 40, 48), adds_step=True)
  golden, _, params = published(net, "wavenet", "wavenet")
  x, t = golden["audio"].swapaxes(1, 2), golden["steps"][:, 0]
  near(jit(net.apply)(params, x, t), golden["output"].swapaxes(1, 2), 2e-5)
  np.testing.assert_allclose(diffwave.step_waves(t, 32), golden["step_embedding"], atol=1e-5)
  other = net.clone(adds_step=False)
  assert np.abs(jit(other.apply)(params, x, t) - jit(net.apply)(params, x, t)).max() > 0.01


@pytest.mark.parametrize(
  ("net", "want"),
  [
    (DiffWave(), 2_619_971),
    (DiffWave(width=128), 6_885_315),
    (DiffWave(mels=0), 2_308_737),
    (DiffWave(width=256, layers=36, cycle=12, mels=0), 24_034_305),
    (DiffWave(width=256, layers=36, cycle=12, mels=0, labels=10), 26_413_313),
    (WaveNet(width=64, skip=64, layers=30, cycle=10, mels=80), 2_637_305),
    (WaveNet(width=128, skip=128, layers=30, cycle=10, mels=80), 6_914_297),
    (WaveNet(), 24_071_681),
    (WaveNet(width=128, layers=30, cycle=10), 6_827_393),
    (WaveNet(labels=10), 26_469_121),
  ],
)
def test_parameters_are_as_many_as_published(net, want):
  cond = {"mel": jnp.zeros((1, 4, 80))} if net.mels else {}
  cond |= {"y": jnp.zeros(1, int)} if net.labels else {}
  assert count(net, **cond) == want


def tape(seed, k, shape):
  return np.random.Generator(np.random.PCG64([seed, k])).standard_normal(shape).astype(np.float32)


def sampled(net, params, schedule, seed, shape, steps, bound=1.0, **cond):
  """A whole reverse pass of a published config, with the reference's noise."""
  process = dict(name="diffusion.process.DDPM", steps=steps, beta_1=1e-4)
  process["beta_T"] = 0.02 if steps == 200 else 0.05
  process, path = build(process), build(schedule)
  n = len(path.keywords["betas"]) if "betas" in getattr(path, "keywords", {}) else steps
  points = process(path(process, jnp.arange(n), n))
  noise = jnp.stack([tape(seed, k + 1, shape) for k in range(n)])[..., None]
  places = []

  def denoise(x, t):
    c_skip, c_out, c_in, c_noise = precond.aligned(t, process)
    jax.debug.callback(places.append, c_noise)
    t = jnp.broadcast_to(c_noise, (len(x),))
    return c_skip * x + c_out * net.apply(params, c_in * x, t, **cond)

  x_T = points.sigma[0] * tape(seed, 0, shape)[..., None]
  key = jax.random.split(KEY, len(x_T))  # which nothing is drawn from
  x = jax.jit(lambda x: samplers.waveform(denoise, x, points, n, key, bound, noise))(x_T)
  jax.effects_barrier()
  return np.asarray(x)[..., 0], np.array(places)


FAST = dict(name="diffusion.times.shorter", betas=(1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5))
FULL = dict(name="diffusion.times.even")


@pytest.mark.parametrize(("name", "schedule"), [("fast", FAST), ("full", FULL)])
def test_whole_passes_with_the_noise_of_the_reference(name, schedule):
  """At six steps of a shorter schedule, between those it was trained at, and at all."""
  net, golden, manifest, params = vocoder()
  mel = jnp.moveaxis(golden["spectrogram"], 1, -1)
  seed = manifest["tape_seeds"][name]
  x, places = sampled(net, params, schedule, seed, (2, 1024), 50, mel=mel)
  # The file has the last step first.
  np.testing.assert_allclose(places[::-1], golden[f"{name}_steps"], atol=2e-4)
  near(x, golden[f"{name}_sampled"], 2e-4)


def test_a_pass_without_a_spectrogram():
  net = DiffWave(width=16, layers=6, cycle=6, steps=200, mels=0)
  last = ("output_projection.weight", np.float32(0.3))
  golden, manifest, params = published(net, "diffwave_class", "diffwave", "unconditional_", last)
  seed = manifest["tape_seeds"]["fast"]
  x, _ = sampled(net, params, FAST, seed, (1, 800), 200)
  near(x, golden["fast_sampled"], 2e-4)


def test_a_pass_of_the_authors_clips_nothing():
  net = WaveNet(**SMALL, skip=24, embed=(32, 40, 48), adds_step=True)
  last = ("final_conv.2.conv.weight", np.float32(0.3))
  golden, manifest, params = published(net, "wavenet", "wavenet", last=last)
  seed = manifest["tape_seeds"]["sampled"]
  x, _ = sampled(net, params, FULL, seed, (2, 700), 8, bound=1e6)
  near(x, golden["sampled"][:, 0], 2e-4)
  assert np.abs(x).max() > 1


def test_the_fast_schedule_lies_where_it_was_published():
  """Kong et al. 2021, App. B, by lmnt-com's rule."""
  process = build(dict(name="diffusion.process.DDPM", steps=200))
  t = times.shorter(process, jnp.arange(6), 6, (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.7))
  places = precond.aligned(process(t), process)[-1][::-1]
  want = [0, 3.20068, 13.43028, 33.82029, 73.98246, 170.60513]
  np.testing.assert_allclose(places, want, atol=1e-3)
  assert jnp.isnan(times.shorter(process, jnp.arange(6), 5)).all()
