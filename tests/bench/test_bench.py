"""Counts against closed forms; clocks against a clock of our own."""

import functools
import io
import json
import threading
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import cli, config, core, files, sharding
from jaxgen.bench import bench, checkpoints, device, sampling, tables, training
from jaxgen.bench.extraction import extraction_speed
from jaxgen.bench.sampling import count_evaluations, fresh_sampler, inputs, sampling_speed
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.evaluation.protocols import protocol
from jaxgen.experiment import Experiment, open_data
from jaxgen.monitor import progress, table
from jaxgen.sampling.sampler import Sampler

shape = lambda *s, dtype=jnp.float32: jax.ShapeDtypeStruct(s, dtype)


def test_flops_of_a_product():
  product = jax.jit(lambda a, b: a @ b)
  want = 2 * 24 * 32 * 40  # a multiplication and an addition each
  assert device.flops(product, shape(24, 32), shape(32, 40)) == want
  lowered = product.lower(shape(24, 32), shape(32, 40))
  assert device.flops(lowered) == want


def test_flops_of_a_gradient_are_twice_those_of_the_product():
  f = jax.jit(jax.grad(lambda a, b: (a @ b).sum(), (0, 1)))
  forward = 2 * 48**3
  got = device.flops(f, shape(48, 48), shape(48, 48))
  # The sum's gradient knows nothing of a @ b: dead code or not, XLA counts it.
  assert 2 * forward <= got <= 3.1 * forward


@pytest.mark.parametrize(
  "padding, taps",
  [
    ("VALID", 3 * 6),  # 6 outputs a side see 3 inputs each
    ("SAME", 3 * 8 - 2),  # 8 outputs; the two at the borders see one less
  ],
)
def test_flops_of_a_convolution(padding, taps):
  conv = jax.jit(
    lambda x, w: jax.lax.conv_general_dilated(
      x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
  )
  got = device.flops(conv, shape(2, 8, 8, 5), shape(3, 3, 5, 7))
  assert got == 2 * 2 * taps**2 * 5 * 7


@pytest.mark.parametrize("unroll", [1, 2, 7])
def test_flops_count_every_turn_of_a_scan(unroll):
  def f(x, w):
    inner = lambda x, _: (x @ w, None)
    outer = lambda x, _: (jax.lax.scan(inner, x, None, length=3)[0], None)
    return jax.lax.scan(outer, x, None, length=7, unroll=unroll)[0]

  got = device.flops(jax.jit(f), shape(64, 64), shape(64, 64))
  assert got == pytest.approx(21 * 2 * 64**3, rel=1e-4)


def test_flops_do_not_depend_on_accumulation():
  def of(accumulate):
    c = config.load("points_diffusion")
    with c.unlocked():
      c.batch, c.accumulate = 512, accumulate
    source = open_data(c)
    return training.step_flops(Experiment.of(c), source, c.batch)

  assert of(4)[0,] == pytest.approx(of(1)[0,], rel=0.02)


def test_flops_of_a_train_step_are_three_times_the_net():
  c = config.load("points_diffusion")  # an MLP: backward is twice forward
  source, experiment = open_data(c), Experiment.of(c)
  c.unlock().batch = 4096  # the optimiser's share becomes small
  step = training.step_flops(experiment, source, 4096)
  w, d, features = 128, 3, 7 * 2 + 64
  net = 2 * 4096 * (features * w + (d - 1) * w * w + w * 2)
  # The first layer has no input gradient; activations and noise come on top.
  assert 3 * net - 2 * 4096 * features * w <= step[0,] < 3.3 * net


def players(*every):
  return types.SimpleNamespace(
    players=[core.Player(f"p{i}", "net", None, k) for i, k in enumerate(every)]
  )


@pytest.mark.parametrize("every", [(1,), (1, 2), (1, 16, 5), (2, 3), (4, 6)])
def test_a_cycle_weighs_turns_by_how_often_they_are_taken(every):
  model = players(*every)
  cost = {turn: sum(10.0**i for i in turn) for turn in training.cycle(model)}
  want = sum(10.0**i / k for i, k in enumerate(every))
  assert training.mean_over_cycle(model, cost) == pytest.approx(want)
  assert len(training.cycle(model)) == np.lcm.reduce(every)


def test_a_gan_moves_its_generator_every_second_time():
  c = config.load("points_gan")
  experiment = Experiment.of(c)
  cost = training.step_flops(experiment, open_data(c), c.batch)
  assert set(cost) == {(0, 1), (0,)} and cost[0, 1] > cost[0,]
  mean = training.mean_over_cycle(experiment.model, cost)
  assert mean == (cost[0, 1] + cost[0,]) / 2


def test_the_dtype_of_most_products():
  def f(a, b):
    c = jax.lax.scan(lambda x, _: (x @ a, None), a, None, length=2)[0] @ a
    return c.sum() + (b @ b).sum()

  half, full = shape(8, 8, dtype=jnp.bfloat16), shape(8, 8)
  assert device.matmul_dtype(jax.jit(f), half, full) == jnp.bfloat16
  assert device.matmul_dtype(jax.jit(f), full, half) == jnp.float32
  assert device.matmul_dtype(jax.jit(jnp.sum), half) == jnp.float32


def test_published_peaks():
  peaks = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "cpu": None}
  peaks |= {"NVIDIA A100-SXM4-40GB": 312e12, "Tesla V100-SXM2-16GB": 125e12, "TPU v4": 275e12}
  peaks |= {"TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v5p": 459e12, "TPU v6 lite": 918e12}
  assert {kind: device.published_peak(kind) for kind in peaks} == peaks


class Clock:
  """Time passes only when somebody says so."""

  def __init__(self, monkeypatch):
    self.now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: self.now)

  def passes(self, seconds, result=None):
    self.now += seconds
    return result


def test_the_first_call_does_not_count(monkeypatch):
  clock = Clock(monkeypatch)
  waits = iter([100.0, 1.0, 2.0, 4.0, 8.0, 16.0])
  call = lambda: clock.passes(next(waits))
  assert device.time_calls(call, calls=2, seconds=60) == [1.0, 2.0]
  assert device.time_calls(call, calls=9, seconds=7) == [8.0]  # 4 is the first


def test_the_clock_of_training(monkeypatch):
  clock = Clock(monkeypatch)
  t = training.Training.__new__(training.Training)
  t.model, t.config = players(1, 2), types.SimpleNamespace(batch=12)
  t.flops, t.state, t.seed, t.fixed = {(0, 1): 1.0, (0,): 2.0}, None, None, None
  t.step = lambda i, *_: clock.passes(3 if i % 2 else 7, (None, {"skips": i}))
  data = iter(lambda: clock.passes(1, "batch"), None)
  got = t.time(data, 5)
  assert got["steps"] == 6  # whole cycles
  assert got["step_seconds"] == {"median": 6, "min": 6, "max": 6}
  assert got["images_per_s"] == 2 and got["waiting"] == pytest.approx(1 / 6)
  turns = t.time_turns(3, 60)
  assert [r["seconds"] for r in turns] == [7, 3]
  assert [r["players"] for r in turns] == [["p0", "p1"], ["p0"]]


class Net(nn.Module):
  """Two layers, so that one is inside of the other."""

  out: int

  @nn.compact
  def __call__(self, x, key=None):
    return nn.Dense(self.out)(nn.Dense(32)(x))


def test_evaluations_in_loops_and_branches():
  big, small = Net(16), Net(8)
  x = jnp.ones((4, 16))
  weights = big.init(jax.random.key(0), x), small.init(jax.random.key(0), x)

  def program(weights, x, n):
    def body(i, x):
      x = big.apply(weights[0], x, key=None)
      y = lambda: small.apply(weights[1], x).sum()
      return x + jax.lax.cond(i % 3 == 0, y, lambda: 0.0)

    return jax.lax.fori_loop(0, n, body, x)

  counts = sampling.evaluations(program, weights, x, 7)
  assert {c.module.out: n for c, n in counts} == {16: 7, 8: 3}
  assert sampling.evaluations(program, weights, x, 0) == []
  call = next(c for c, _ in counts if c.module.out == 16)
  np.testing.assert_array_equal(call(weights[0], [x]), big.apply(weights[0], x))
  products = 2 * 4 * (16 * 32 + 32 * 16)
  assert products <= call.flops <= products + 2 * 4 * (32 + 16)  # and biases
  assert not np.any(sampling.repeat_network(call, 0, 4)())  # as often as was said
  assert np.any(sampling.repeat_network(call, 3, 4)())


@pytest.mark.parametrize("sampler", ["heun", "euler", "dpmpp_2m", "ancestral"])
@pytest.mark.parametrize("steps", [1, 6])
def test_models_know_their_evaluations(sampler, steps):
  c = config.load("points_diffusion:debug")
  with c.unlocked():
    c.model.net.depth = 1
    c.model.sampler.name = f"diffusion.samplers.{sampler}"
  s = fresh_sampler(c)
  assert total(s, steps=steps) == s.model.nfe(steps=steps)


def test_guidance_doubles_the_evaluations():
  c = config.load("points_diffusion:debug")
  with c.unlocked():
    c.model.classes = c.model.net.classes = 3
    c.model.net.depth = 1
  model, point = build(c.model), np.zeros((1, 2), np.float32)
  params, stats = model.init({"x": point}, jax.random.key(0))
  state = core.State(
    step=jnp.int32(0), params=params, stats=stats, opt={}, ema={}, skips=jnp.zeros(2, jnp.int32)
  )
  s = Sampler(model, state, (2,), point.dtype, 3, {})
  for w in (1.0, 2.0):
    assert total(s, steps=3, guidance=w) == s.model.nfe(steps=3, guidance=w) == 5 * w


def total(s, **knobs):
  return sum(n for _, n in count_evaluations(s, inputs(s, 4, knobs)))


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
  """The peak of this machine is not what is tested."""
  monkeypatch.setattr(
    device, "measured_peak", functools.partial(device.measured_peak, size=32, seconds=0.01)
  )


def run(capsys, what, config, *argv):
  """The verb as the command line runs it, for a moment -> what it printed."""
  config = [f"--config=configs/{config}.py:debug"] if config else []
  values = cli.parse(bench, ["jaxgen bench", what, *config, "--seconds=0.01", *argv])
  bench.check_flags(values)
  bench.bench(values)
  return capsys.readouterr()


def strict(path):
  """Reads JSON that knows no infinity."""
  return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_bench_train(capsys, tmp_path):
  small = ("--config.model.gen.depth=1", "--config.model.disc.depth=1", "--steps=5")
  out, err = run(capsys, "train", "points_gan", *small, f"--json={tmp_path}/x/t.json")
  assert "compiling the step of disc and gen" in err
  r = strict(tmp_path / "x" / "t.json")
  assert r["bench"] == "train" and r["model"] == "models.gan.GAN"
  assert r["machine"]["jax"] == jax.__version__
  assert r["cycle"] == r["programs"] == 2 and r["real"]["steps"] == 6
  by_turn = {"+".join(t["players"]): t for t in r["turns"]}
  assert {k: t["share"] for k, t in by_turn.items()} == {"disc+gen": 0.5, "disc": 0.5}
  assert r["flops_per_step"] == sum(t["flops"] for t in r["turns"]) / 2
  for row in (r["real"], r["fixed"]):
    per_image = r["flops_per_step"] / r["batch"]
    assert row["flops_per_s"] == pytest.approx(per_image * row["images_per_s"])
    assert row["share_of_measured"] == pytest.approx(row["flops_per_s"] / r["peak"]["measured"])
    step = row["step_seconds"]
    assert 0 < step["min"] <= step["median"] <= step["max"]
  assert r["peak"]["dtype"] == "float32" and r["peak_bytes"] > 0
  assert "images/s" in out and "of the measured float32 peak" in out
  assert ("published peak, bf16", "not known") in [
    tuple(x.strip() for x in line.split("  ") if x) for line in out.splitlines()
  ] or r["peak"]["published_bf16"]


def test_bench_sample(capsys, tmp_path):
  flags = ("--batch=8", "--steps=3", f"--json={tmp_path}/s.json")
  out, _ = run(capsys, "sample", "points_diffusion", *flags)
  r = strict(tmp_path / "s.json")
  assert r["evaluations"] == 5 and r["batch"] == 8  # Heun: 2 x 3 - 1
  assert r["knobs"]["steps"] == 3 and r["knobs"]["s_max"] == "inf"
  assert r["samples_per_s"] == pytest.approx(8 / r["batch_seconds"]["median"])
  assert 0 <= r["overhead"] < 1 and r["network_seconds"] > 0
  assert r["flops_per_s"] == pytest.approx(r["flops"] / r["batch_seconds"]["median"])
  assert "samples/s" in out and "steps 3" in out


def test_num_bounds_what_is_drawn():
  c = config.load("points_vae:debug")
  with c.unlocked():
    c.model.net.depth = 1
  s = fresh_sampler(c)
  r = sampling_speed(s, num=24, batch=8, seconds=1e9)
  assert r["batches"] == 3 and r["evaluations"] == 1 == s.model.nfe()
  with pytest.raises(UserError, match="num=0"):
    sampling_speed(s, num=0, batch=8)


def test_bench_data(capsys, tmp_path):
  flags = ("--config.model.net.depth=1", f"--json={tmp_path}/d.json")
  out, _ = run(capsys, "data", "points_vae", *flags)
  r = strict(tmp_path / "d.json")
  assert list(r["rows"]) == ["read, 0 workers", "on to the device"]
  assert r["needed_per_s"] > 0 and "x as fast as needed" in out
  for row in r["rows"].values():  # float32 [2], and no label or int32
    per_example = 1e6 * row["mb_per_s"] / row["examples_per_s"]
    assert per_example == pytest.approx(8) or per_example == pytest.approx(12)
  out, _ = run(capsys, "data", None, "--data=points:ring8", "--batch=32")
  assert "points:ring8, batch 32" in out and "needed" not in out


def test_bench_checkpoint(capsys, tmp_path):
  flags = (f"--workdir={tmp_path}", "--config.model.net.depth=1", f"--json={tmp_path}/c.json")
  out, err = run(capsys, "checkpoint", "points_vae", *flags)
  r = strict(tmp_path / "c.json")
  c = config.load("points_vae:debug")
  with c.unlocked():
    c.model.net.depth = 1
  state = Experiment.of(c).abstract(open_data(c), sharding.make_mesh())
  weights = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  assert len(state.ema) == 1  # and two moments; all else are counters
  assert 16 * weights < r["bytes"] <= 16 * weights + 64
  assert r["leaves"] == len(jax.tree.leaves(state))
  assert set(r["mb_per_s"]) == {"save", "write", "restore", "read"}
  for row in (*r["mb_per_s"].values(), r["blocked_s"]):
    assert 0 < row["min"] <= row["median"] <= row["max"]
  assert "MB/s" in out and "round 3 of 3" in err
  assert [p.name for p in tmp_path.iterdir()] == ["c.json"]  # it leaves nothing behind


def test_data_need_not_be_there_to_save_a_state():
  c = config.load("adm_imagenet64")
  c.data.source = "folder:/nowhere/at/all"
  assert checkpoints.data_of(c).shape == (64, 64, 3)
  c.data.size = 0
  with pytest.raises(UserError, match="nowhere"):
    checkpoints.data_of(c)


def test_a_checkpoint_that_does_not_fit_is_not_begun(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=2e9))
  checkpoints.check_room(str(tmp_path), int(0.7e9))
  with pytest.raises(UserError, match=r"has 2.0 GB of room, and this takes 2.5"):
    checkpoints.check_room(str(tmp_path), int(1e9))


@pytest.mark.parametrize(
  "argv, message",
  [
    ([], "train, sample, data, eval, checkpoint"),
    (["checkpoint"], "needs --config"),
    (
      ["checkpoint", "--config=points_vae:debug", "--workdir=/nowhere/at/all"],
      "there is no folder",
    ),
    (["trian"], "did you mean 'train'"),
    (["train"], "needs --config"),
    (["data"], "--data=digits"),
    (["train", "--config=points_vae", "--workdir=W"], "no use for --workdir"),
    (["train", "--config=points_vae", "--eta=1"], "no use for --eta"),
    (["sample", "--workdir=W", "--data=digits"], "no use for --data"),
    (["sample", "--workdir=W", "--config=points_vae"], "either --config or"),
    (["data", "--data=digits", "--batch=0"], "batch=0"),
    (["data", "--config=points_vae", "--size=8"], "--config.data.size"),
    (["train", "--config=points_vae", "--seconds=nan"], "seconds=nan"),
    (["train", "--config=points_vae", "--steps=0"], "steps=0"),
    (["train", "--config=points_vae", "--steps=2.5"], "whole number"),
    (["train", "sample"], "what is 'sample'"),
    (["sample", "--config=points_vae:debug", "--guidance=2"], "no knob"),
  ],
)
def test_mistakes_end_in_a_line(argv, message):
  with pytest.raises(UserError, match=message) as e:
    values = cli.parse(bench, ["jaxgen bench", *argv])
    bench.check_flags(values)
    bench.bench(values)
  assert "\n" not in str(e.value)


def test_columns_line_up():
  got = table.aligned([("", "a", "bbb"), ("name", "1,234", "5"), ("x", "7")])
  assert got.splitlines() == ["          a  bbb", "name  1,234    5", "x         7"]

  text = table.markdown(["", "a"], [["x", "1"]])
  assert text == "|  | a |\n| --- | ---: |\n| x | 1 |"


def test_numbers_are_readable():
  assert table.si(1.2345e12, "FLOP/s") == "1.23 TFLOP/s" and table.si(847e6, "FLOP") == "847 MFLOP"
  assert table.si(0.0, "B") == "0 B" and table.si(999.9e3, "x") == "1,000 kx"
  assert [table.seconds(s) for s in (2.5, 0.0123, 4e-5)] == ["2.50 s", "12.3 ms", "40.0 us"]
  assert [table.size(n) for n in (3 * 2**29, 512)] == ["1.50 GiB", "0.500 KiB"]
  assert table.share(0.256) == "25.6%" and table.number(123456.7) == "123,457"


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / "x.json"
  files.write_json(path, {"a": float("inf"), "b": [1, float("nan")]})
  assert strict(path) == {"a": "inf", "b": [1, "nan"]}
  with pytest.raises(TypeError):
    files.write_json(path, {"a": object()})
  assert strict(path)["a"] == "inf"
  assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_long_work_is_not_silent():
  class Stream(io.StringIO):
    def __init__(self):
      super().__init__()
      self.repeated = threading.Event()

    def write(self, text):
      if "still at work" in text:
        self.repeated.set()
      return super().write(text)

  stream = Stream()
  with progress.status_lines(stream, every=0.01) as announce:
    announce("at work")
    assert stream.repeated.wait(30)
  assert stream.getvalue().startswith("at work ...\n")


def test_features_are_timed_with_the_layer_of_the_protocol():
  """Inception's 5.7 G multiplications and additions (Szegedy et al. 2015), at its layer of FID."""
  result = extraction_speed(protocol("adm"), 32, 2, 0.1, lambda text: None)
  assert 10e9 < result["flops_per_image"] < 12e9
  assert result["evaluation_seconds"] == pytest.approx(50_000 / result["images_per_s"])
  assert "50,000 images" in tables.extraction(result)


def test_eval_has_no_use_for_a_config(verb):
  status, _, lines = verb("bench", "eval", "--config=configs/digits_gan.py")
  assert status == 2 and lines == ["jaxgen: bench eval has no use for --config"]
