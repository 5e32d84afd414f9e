"""Cascades: chains of stages, conditioning augmentation, truncation."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import DCGAN, SPECS, filled, jit, same
from test_samplers import ALL, at
from verbs import call, finish, start

import jaxgen
from jaxgen import config, core, train
from jaxgen.bench import sampling, tables
from jaxgen.config import build
from jaxgen.diffusion import conditioning, process, samplers, times
from jaxgen.diffusion.conditioning import Noisy
from jaxgen.errors import UserError
from jaxgen.keys import example_keys, fold
from jaxgen.models.cascade import Cascade, shrink, stage_state

KEYS = jax.random.split(jax.random.key(0), 2000)


# Truncation.


P, S = process.Cosine(), 0.5


def gaussian(x, t):
  """The exact denoiser of N(0, S^2)."""
  return S**2 * t.alpha / (S**2 * t.alpha**2 + t.sigma**2) * x


@pytest.mark.parametrize("sampler", [s for s in ALL if s is not samplers.pc])
def test_a_stopped_chain_has_the_law_of_x_t(sampler):
  path = P(times.karras(P, jnp.arange(400), 400))
  x_T = samplers.initial(path, KEYS, (8,))

  @jax.jit
  def run(logsnr):
    t = at(path, conditioning.last_point(path, 400, logsnr))
    D, longer, n = conditioning.stop_early(gaussian, path, jnp.int32(400), logsnr)
    return sampler(D, x_T, longer, n, KEYS), t

  whole = jax.jit(lambda n: sampler(gaussian, x_T, path, n, KEYS))
  # Two programs: the same but for rounding.
  np.testing.assert_allclose(run(jnp.inf)[0], whole(jnp.int32(400)), atol=1e-5)
  for logsnr in (-3.0, 0.0, 2.0):
    x, t = run(logsnr)
    last = int(np.sum(path.logsnr <= logsnr)) - 1
    assert t.logsnr == path.logsnr[last] <= logsnr < path.logsnr[last + 1]
    want = np.sqrt(t.alpha**2 * S**2 + t.sigma**2)
    # 400 steps of first order are 1% off themselves.
    np.testing.assert_allclose(x.std(), want, rtol=0.02)
  assert run._cache_size() == 1


def test_stopping_is_where_euler_is_then():
  path = P(times.even(P, jnp.arange(20), 20))
  x = x_T = samplers.initial(path, KEYS[:4], (3,))
  D, longer, n = conditioning.stop_early(gaussian, path, jnp.int32(20), path.logsnr[7])
  got = samplers.euler(D, x_T, longer, n, KEYS[:4])
  assert conditioning.last_point(path, 20, path.logsnr[7]) == 7
  for i in range(7):
    a, b = at(path, i), at(path, i + 1)
    x_0 = gaussian(x, a)
    x = b.alpha * x_0 + b.sigma * (x - a.alpha * x_0) / a.sigma
  np.testing.assert_allclose(got, x, rtol=2e-5, atol=1e-6)
  # Noisier than the path begins: nothing is done.
  D, longer, n = conditioning.stop_early(gaussian, path, jnp.int32(20), -1e9)
  assert same(samplers.euler(D, x_T, longer, n, KEYS[:4]), x_T)
  assert conditioning.last_point(path, 20, -1e9) == 0


# Conditioning augmentation.


def test_spoiling_is_the_forward_process():
  z, s = 0.3 * jnp.ones((2000, 4, 4, 1)), jnp.full(2000, 0.4)
  out = Noisy(P)(KEYS, z, s)
  t = P(0.4)
  assert same(out["level"], s)
  np.testing.assert_allclose(out["low_res"].mean(), 0.3 * t.alpha, atol=0.02)
  np.testing.assert_allclose(out["low_res"].std(), t.sigma, rtol=0.02)
  assert same(Noisy(P)(KEYS, z, 0 * s)["low_res"], z)


def test_training_levels_and_blur():
  draw = jax.random.uniform(jax.random.key(1), (2000, 5, 6, 2))
  one = Noisy(P, hi=0.5, blur=0.5)
  s = one(KEYS, draw)["level"]
  assert 0 <= s.min() and 0.49 < s.max() < 0.5
  soft = one.soften(KEYS, draw)
  changed = np.asarray(jnp.any(soft != draw, (1, 2, 3)))
  assert abs(changed.mean() - 0.5) < 0.06
  # A Gaussian of 3x3, with edges mirrored: by brute force, for its own width.
  i = int(np.flatnonzero(changed)[0])
  x, y = np.asarray(draw[i], np.float64), np.asarray(soft[i])
  wide = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="reflect")
  errors = []
  for sigma in np.linspace(0.4, 0.6, 2001):
    k = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    k = np.outer(k, k) / k.sum() ** 2
    blurred = sum(k[a, b] * wide[a : a + 5, b : b + 6] for a in range(3) for b in range(3))
    errors.append(np.abs(blurred - y).max())
  assert min(errors) < 1e-4 < 1e-2 < max(errors)
  np.testing.assert_array_equal(soft[~changed], draw[~changed])


# Cascades.


UNET = dict(
  name="nets.unet.UNet", width=8, mults=(1,), attend=(), head=8, least=4, labels=3, blocks=1
)


COSINE = dict(
  process=dict(name="diffusion.process.Cosine"),
  draw_t=dict(name="diffusion.times.uniform"),
  path=dict(name="diffusion.times.karras"),
)


def stage(low):
  """An upsampler from `low` pixels to twice as many."""
  return build(
    dict(
      name="models.diffusion.Diffusion",
      net=UNET,
      **COSINE,
      precond=dict(name="diffusion.precond.v"),
      sampler=dict(name="diffusion.samplers.dpmpp_2m"),
      steps=4,
      classes=3,
      label_drop=0.0,
      bound=1.0,
      cond=dict(low_res=dict(name="diffusion.degrade.area", size=low)),
      augment=dict(name="diffusion.conditioning.Noisy", process=COSINE["process"]),
    )
  )


@functools.cache
def chain():
  """A GAN of 4x4, a diffusion model 4 -> 8, another 8 -> 16; its state."""
  disc = dict(name="nets.convs.Discriminator", width=4, classes=3)
  gan = build(SPECS["norms"] | dict(gen=DCGAN | dict(size=4), disc=disc))
  shapes = (4, 4, 1), (8, 8, 1), (16, 16, 1)
  stages = gan, stage(4), stage(8)
  model = Cascade(stages, shapes, (3, 3, 3), np.dtype("uint8"))
  batch = {"x": jnp.zeros((4, 16, 16, 1)), "y": jnp.zeros(4, jnp.int32)}
  params, stats = jax.eval_shape(model.init, batch, jax.random.key(0))
  state = filled(core.State(0, params, stats, {}, {}, None))
  return model, state, jit(model.sample)


def given(n=6):
  batch = {"x": jnp.zeros((n, 16, 16, 1)), "y": jnp.arange(n, dtype=jnp.int32) % 3}
  return batch, example_keys(jax.random.key(5), n)


def test_a_chain_is_its_stages_one_by_one():
  model, state, sample = chain()
  batch, keys = given()
  got = sample(state, batch, keys, steps=3.0, level_1=0.3)
  low = None
  for i, one in enumerate(model.stages):
    now = batch | {"x": jnp.zeros((6, *model.shapes[i]))}
    knobs = {"steps": 3.0} if i else {}
    if i:
      now["level"] = jnp.full(6, 0.3 if i == 1 else 0.0)
      # Non-truncated augmentation belongs to the hand-over.
      key = fold(fold(keys, i - 1), 3) if model.truncates(i) else fold(fold(keys, i), 2)
      now["low_res"] = one.augment.spoil(fold(key, 0), low, now["level"])
    x = jit(one.sample)(stage_state(state, i), now, fold(keys, i), **knobs)
    low = core.on_device(core.as_data(x, model.dtype))
  np.testing.assert_allclose(got, x, atol=2e-4)
  assert np.std(got) > 0.01


def test_knobs_of_stages():
  model, state, sample = chain()
  assert model.knobs["steps_1"] == 4 and "steps_0" not in model.knobs
  # The stage below the first upsampler is a GAN: there is nothing to stop.
  assert "truncate_2" in model.knobs and "truncate_1" not in model.knobs
  assert model.expand({"steps": 9.0, "steps_2": 3.0}) == {"steps_1": 9.0, "steps_2": 3.0}
  assert model.nfe() == 1 + 4 + 4 and model.nfe(steps=7, steps_2=1) == 1 + 7 + 1
  batch, keys = given()
  few = {k: jnp.float32(2 if k.startswith("steps") else v) for k, v in model.knobs.items()}
  x = sample(state, batch, keys, **few)
  programs = sample._cache_size()
  truncated = {"level_2": 0.5, "truncate_2": 1.0}
  changes = {"level_1": 0.5}, {"level_2": 0.5}, {"steps_1": 3.0}, {"temperature_0": 0.5}
  for change in (*changes, truncated):
    turned = sample(state, batch, keys, **few | {k: jnp.float32(v) for k, v in change.items()})
    assert np.isfinite(turned).all() and not same(turned, x), change
  assert sample._cache_size() == programs
  # At level 0 there is nothing to truncate.
  zero = sample(state, batch, keys, **few | {"truncate_2": jnp.float32(1)})
  assert same(zero, x)


def test_nothing_goes_to_the_host_between_stages():
  model, state, sample = chain()
  batch, keys = given()
  program = sample.lower(state, batch, keys, **model.knobs).compile().as_text()
  for word in ("callback", "infeed", "outfeed", "send(", "recv("):
    assert word not in program
  assert program.count("ENTRY") == 1


def test_a_chain_does_not_depend_on_how_it_is_split():
  model, state, sample = chain()
  batch, keys = given()
  kw = {"steps": 2.0, "level_2": 0.4, "truncate_2": 1.0, "level_1": 0.2}
  x = sample(state, batch, keys, **kw)
  some = np.array([4, 1, 5])
  part = sample(state, {k: v[some] for k, v in batch.items()}, keys[some], **kw)
  np.testing.assert_allclose(part, x[some], atol=1e-4)


def test_truncated_gives_what_the_chain_was_then():
  """The hand-over: x_t of the stage below, told at its own level."""
  model, state, _ = chain()
  batch, keys = given()
  below, above = model.stages[1], model.stages[2]
  seen = {}

  class Listening:
    augment, knobs = above.augment, above.knobs

    @staticmethod
    def sample(state, batch, key, **knobs):
      seen.update(batch)
      return batch["x"]

  low = jax.random.uniform(jax.random.key(3), (6, 4, 4, 1), minval=-1)
  two = Cascade((below, Listening), model.shapes[1:], (3, 3), model.dtype)
  one = core.State(0, {"0.net": state.params["1.net"]}, {"0.net": {}}, {}, {}, None)
  now = batch | {"low_res": low, "level": jnp.zeros(6)}
  two.sample(one, now, keys, steps_0=6, level_1=0.5, truncate_1=1.0)
  path, n = below.path_points({"steps": 6})
  at = max(i for i in range(6) if path.t[i] >= 0.5)
  np.testing.assert_allclose(seen["level"], path.t[at], rtol=1e-3)
  # The same leg by leg: dpmpp_2m over the first points alone, without bytes.
  D = below.denoiser(stage_state(one, 0), now | {"x": jnp.zeros((6, 8, 8, 1))})
  k = fold(keys, 0)
  x = samplers.initial(path, fold(k, 0), (8, 8, 1))
  old, last = x, path.logsnr[0] / 2
  for i in range(at):
    t, s = (jax.tree.map(lambda a, j=j: a[j], path) for j in (i, i + 1))
    x_0, h = D(x, t), (s.logsnr - t.logsnr) / 2
    lean = h / (2 * (t.logsnr / 2 - last)) if i else 0
    move = x_0 + lean * (x_0 - old)
    x = s.sigma / t.sigma * x - s.alpha * jnp.expm1(-h) * move
    old, last = x_0, t.logsnr / 2
  np.testing.assert_allclose(seen["low_res"], x, atol=2e-4)


def test_noise_of_smaller_stages_is_of_the_same_places():
  noise = jax.random.normal(jax.random.key(0), (500, 16, 16, 1))
  small = shrink(noise, 4)
  np.testing.assert_allclose(small.std(), 1, atol=0.02)
  np.testing.assert_allclose(small[:, 1, 2, 0], noise[:, 4:8, 8:12, 0].sum((1, 2)) / 4, atol=1e-6)


# On disk.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Two stages of a few steps, as a cascade and one by one."""
  home = tmp_path_factory.mktemp("cascade")
  for name in ("digits4", "digits8"):
    c = config.load(f"configs/cdm.py:{name}")
    c.update(steps=2, batch=8)
    c.model.net.update(width=8, head=8, mults=(1,), attend=(), blocks=1)
    c.model.steps = 3
    c.log.update(every=1, pictures=0)
    train.train(c, str(home / name), quiet=True)
  return home


def test_load_and_sample_a_chain(trained):
  low, up = str(trained / "digits4"), str(trained / "digits8")
  model = jaxgen.load([low, up])
  assert isinstance(model.model, Cascade) and model.classes == 10
  x = model.sample(3, 6, steps=2)
  assert x.shape == (6, 8, 8, 1) and x.dtype == np.uint8
  assert same(x, jaxgen.load(f"{low},{up}").sample(3, 6, steps=2, batch=6))
  # In other parts the bytes may differ by rounding, and by that alone.
  again = model.sample(3, 6, steps=2, batch=4)
  assert np.abs(again.astype(int) - x).max() <= 1
  assert model.card["stages"][1]["workdir"] == up
  with pytest.raises(UserError, match="did you mean"):
    model.sample(0, 1, level_2=0.1)
  with pytest.raises(UserError, match="steps_1=0"):
    model.sample(0, 1, steps_1=0)


def test_a_chain_on_four_devices(trained, tmp_path):
  low, up = str(trained / "digits4"), str(trained / "digits8")
  out = tmp_path / "x.npz"
  argv = [f"--workdir={low},{up}", *"--num=6 --seed=3 --batch=4".split(), f"--out={out}"]
  status, _, lines = finish(start("sample", *argv, "--knobs=level_1=0.3,truncate_1=1", devices=4))
  assert status == 0, lines
  want = jaxgen.load([low, up]).sample(3, 6, level_1=0.3, truncate_1=1)
  got = np.load(out)["arr_0"]
  assert np.abs(got.astype(int) - want).max() <= 1  # rounding, at the most


def test_a_chain_is_timed_beside_its_stages(trained):
  model = jaxgen.load([str(trained / "digits4"), str(trained / "digits8")])
  small, large = model.stages
  x = small.sample(0, 4, steps=2)
  assert x.shape == (4, 4, 4, 1)
  assert large.sample(0, 4, low_res=x, steps=2).shape == (4, 8, 8, 1)
  told = sampling.time_stages(model, 4, 3, 60.0, steps=2)
  assert told["rounds"] == 3 and len(told["stage_seconds"]) == 2
  rows = dict(tables.stage_rows(told))
  assert list(rows)[-1] == "  the chain beside their sum"
  assert rows["  the chain beside their sum"].endswith("%")
  assert sampling.time_stages(small, 4, 3, 60.0) is None


class Rest(nn.Module):
  """An exact net: what x has beyond `plus` times its enlarged small image."""

  plus: float = 0.0

  @nn.compact
  def __call__(self, x, c_noise, key=None, low_res=None):
    self.param("w", nn.initializers.zeros, ())
    whole = jnp.repeat(jnp.repeat(low_res, 2, 1), 2, 2)
    return self.plus * whole + jnp.full_like(x, 0.25)


def expecting(net, **fields):
  """A model of 8x8 from 4x4 with this net, and a state for it."""
  model = build(
    dict(
      name="models.diffusion.Diffusion",
      net=net,
      precond=dict(name="diffusion.precond.x0"),
      sampler=dict(name="diffusion.samplers.euler"),
      steps=5,
      cond=dict(low_res=dict(name="diffusion.degrade.area", size=4)),
      **fields,
    )
  )
  return model, core.State(0, {"net": {"w": jnp.zeros(())}}, {"net": {}}, {}, {}, None)


AROUND = dict(name="diffusion.degrade.enlarged", how="nearest")


def expected_batch(n, plus):
  """Small images, and big ones `plus` brighter."""
  low = jax.random.uniform(jax.random.key(0), (n, 4, 4, 1))
  x = jnp.repeat(jnp.repeat(low, 2, 1), 2, 2) + plus
  return {"x": x, "low_res": low}, example_keys(KEYS[0], n)


def test_what_is_expected_is_added_and_taken_away():
  """With `around`, an exact net knows the rest alone, and D is unchanged."""
  model, state = expecting(Rest(), **COSINE, around=AROUND)
  batch, keys = expected_batch(3, 0.25)
  assert model.loss(state, batch, keys)[0] < 1e-10
  np.testing.assert_allclose(model.sample(state, batch, keys), batch["x"], atol=1e-5)
  # Without it in the batch, the small image is made of x.
  made = model.conditions({"x": batch["x"]})["low_res"]
  np.testing.assert_allclose(made, batch["low_res"] + 0.25, atol=1e-6)


def test_what_is_expected_leaves_the_bound_alone():
  """L_vlb is of x, whatever the net sees of it: its last term has bytes."""
  fields = dict(
    process=dict(name="diffusion.process.DDPM", steps=4, beta_1=0.1, beta_T=0.5),
    draw_t=dict(name="diffusion.times.grid", steps=4),
    path=dict(name="diffusion.times.even"),
    objective=dict(name="diffusion.objective.bound", weight=1.0),
  )
  batch, keys = expected_batch(64, 0.2)
  models = expecting(Rest(), around=AROUND, **fields), expecting(Rest(plus=1.0), **fields)
  losses = [jit(model.loss)(state, batch, keys)[0] for model, state in models]
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_stages_that_do_not_fit(trained):
  low, up = str(trained / "digits4"), str(trained / "digits8")
  with pytest.raises(UserError, match="enlarges images of 4x4x1, but .*8x8x1"):
    jaxgen.load([up, up])
  with pytest.raises(UserError, match="is no upsampler"):
    jaxgen.load([low, low])


def test_a_cascades_config(trained, tmp_path, capsys, monkeypatch):
  path = tmp_path / "mine.py"
  folders = [str(trained / name) for name in ("digits4", "digits8")]
  path.write_text(
    "from configs import _base\n\n\n"
    f"def get_config(arg=None):\n  return _base.cascade(*{folders!r})\n"
  )
  from jaxgen.sampling import stages as chains

  home = str(tmp_path / "C")
  train.train_stages(config.load(str(path)), home)
  listed = json.loads((tmp_path / "C" / "cascade.json").read_text())
  assert [list(s) for s in listed["stages"]] == [["workdir"], ["workdir"]]
  x = jaxgen.load(home).sample(0, 2)
  assert same(x, jaxgen.load(folders).sample(0, 2))
  with pytest.raises(UserError, match="stages 0 to 1"):
    train.train_stages(config.load(str(path)), home, 2)
  other = config.load("configs/cdm.py:digits")
  with pytest.raises(UserError, match="holds a cascade of other stages"):
    chains.write_stages(other, home)
  (tmp_path / "C" / "cascade.json").write_text("{")
  with pytest.raises(UserError, match="is damaged"):
    jaxgen.load(home)
  argv = "train", "--config=configs/digits_gan.py", f"--workdir={tmp_path}/g", "--stage=1"
  status, _, lines = call(capsys, monkeypatch, *argv)
  assert status == 2 and len(lines) == 1
  assert "--stage is of a cascade" in lines[0]


def test_the_cascades_that_come_along_fit():
  """Full-size stages, by their configs alone."""
  cascades = {"cdm.py": (32, 64, 256), "cdm.py:128": (32, 64, 128), "photos.py": (16, 32, 64)}
  for name, sizes in cascades.items():
    listed = [config.load(s["config"]) for s in config.load(f"configs/{name}").stages]
    assert [c.data.size for c in listed] == list(sizes)
    for below, c in zip(listed[:-1], listed[1:], strict=True):
      assert c.model.cond.low_res.size == below.data.size
      # What a stopped chain has left is noise that the upsampler knows.
      assert c.model.augment.process == below.model.process or (
        below.data.size == 64
      )  # another process in the paper, too
