"""Sampling: one program, samples by key alone, and where they came from."""

import contextlib
import dataclasses
import json
import logging
import subprocess
import sys

import jax
import numpy as np
import pytest
from verbs import ROOT, call, finish, start, tree

import jaxgen
from jaxgen import config, ema, train
from jaxgen.checkpoint import disk, restore
from jaxgen.distributed import cores
from jaxgen.errors import UserError
from jaxgen.models.gan import GAN
from jaxgen.monitor import pictures
from jaxgen.sampling import latents, presets, sampler, stages
from jaxgen.sampling.presets import KNOBS
from jaxgen.sampling.sampler import key_of


def trained(folder, name, **overrides):
  """A few steps of a tiny model: -> workdir."""
  c = config.load(f"configs/{name}.py:debug")
  with c.unlocked():
    c.update_from_flattened_dict({"steps": 6, "log.pictures": 0, "checkpoint.every": 2} | overrides)
  train.train(c, str(folder / name), quiet=True)
  return folder / name


@pytest.fixture(scope="module")
def points(tmp_path_factory):
  """Diffusion with labels and the ancestral sampler: all knobs; two EMAs."""
  profile = dict(name="ema.power")
  return trained(
    tmp_path_factory.mktemp("points"),
    "points_diffusion",
    **{
      "data.classes": 25,
      "model.classes": 25,
      "model.net.classes": 25,
      "model.label_drop": 0.1,
      "model.steps": 5,
      "model.sampler": dict(name="diffusion.samplers.ancestral"),
      "checkpoint.keep": 2,
      "checkpoint.keep_every": 2,
      "ema": {"narrow": profile | dict(width=0.05), "wide": profile | dict(width=0.15)},
    },
  )


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  return trained(tmp_path_factory.mktemp("digits"), "digits_vae", **{"model.net.width": 8})


@contextlib.contextmanager
def compilations():
  """Names of the programs that jax compiles meanwhile."""
  names = []

  class Handler(logging.Handler):
    def emit(self, record):
      text = record.getMessage()
      if text.startswith("Compiling "):
        names.append(text.split()[1])

  log, handler = logging.getLogger("jax._src.interpreters.pxla"), Handler()
  log.addHandler(handler)
  level, spread = log.level, log.propagate
  log.setLevel(logging.DEBUG)
  log.propagate = False
  try:
    with jax.log_compiles():
      yield names
  finally:
    log.removeHandler(handler)
    log.setLevel(level)
    log.propagate = spread


def test_no_knob_or_label_compiles_anew(points):
  model = jaxgen.load(points)
  with compilations() as names:
    first = model.sample(0, 8)
  assert len([n for n in names if "run" in n]) == 1  # the counter counts
  with compilations() as names:
    changed = [
      model.sample(0, 8, labels=3),
      model.sample(0, 8, labels=-1),
      model.sample(0, 8, steps=3),
      model.sample(0, 8, steps=100),
      model.sample(0, 8, guidance=2.5),
      model.sample(0, 8, eta=0.0),
      model.sample(0, 8, steps=9, guidance=0.0, eta=0.3),
      model.sample(7, 8),
      model.sample(0, 20, batch=8),
    ]
  assert names == []
  for x in changed[:-1]:  # and each of them does something
    assert not np.array_equal(x, first)


def test_temperature_compiles_nothing(digits):
  model = jaxgen.load(digits)
  first = model.sample(0, 4)
  with compilations() as names:
    cold = model.sample(0, 4, temperature=0.1)
  assert names == [] and not np.array_equal(cold, first)


def test_images_alone_are_drawn_on_all_cores(points, digits, tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(cores, "make_devices", lambda *args: asked.append(args))
  state = restore.restore_subset(
    digits, lambda meta: restore.abstract_leaves(meta, ["params", "stats"])
  )[1]
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  stages.prepare_devices([str(digits), None], 32)
  stages.prepare_devices([f"{digits},{digits}"])  # stages of a cascade
  assert asked == [([32], size), ([256], 2 * size)] and size > 10_000
  stages.prepare_devices([str(points)])
  stages.prepare_devices([str(digits), str(tmp_path)])
  assert len(asked) == 2


@pytest.mark.parametrize(
  "changed",
  [{"leaves": 3}, {"data": {"shape": [-1]}}, {"leaves": {"params/w": {"shape": "x"}}}, {}],
)
def test_no_devices_by_what_a_stranger_says(digits, tmp_path, monkeypatch, changed):
  meta = restore.latest_meta(digits)
  monkeypatch.setattr(disk, "read_meta", lambda path: meta | changed)
  assert (restore.peek(digits) is None) == bool(changed)


@pytest.mark.parametrize("workdir", ["points", "digits"])
def test_samples_depend_on_the_key_alone(workdir, request):
  model = jaxgen.load(request.getfixturevalue(workdir))
  whole = model.sample(5, 12, batch=4)
  assert whole.shape[0] == 12 and len(np.unique(whole, axis=0)) == 12
  np.testing.assert_array_equal(model.sample(5, 7, batch=4), whole[:7])
  np.testing.assert_array_equal(model.sample(jax.random.key(5), 12, batch=4), whole)
  for batch in (1, 5, 12, 256):  # other programs: other roundings
    other = model.sample(5, 12, batch=batch)
    far = np.abs(other.astype(np.float64) - whole).max()
    assert far <= (1 if model.dtype == np.uint8 else 1e-4)
  assert not np.array_equal(model.sample(6, 12, batch=4), whole)


def test_four_devices_draw_what_one_does(digits, tmp_path):
  argv = ["sample", f"--workdir={digits}", "--num=10", "--seed=3", "--batch=8"]
  four = start(*argv, f"--out={tmp_path / 'four.npz'}", devices=4)
  one = jaxgen.load(digits).sample(3, 10, batch=8)
  status, _, lines = finish(four)
  assert (status, lines) == (0, [])
  with np.load(tmp_path / "four.npz", allow_pickle=False) as file:
    assert file["arr_0"].dtype == np.uint8
    assert np.abs(file["arr_0"].astype(int) - one).max() <= 1
    assert file["arr_1"].tolist() == list(range(10))
    info = json.loads(str(file["info"]))
  assert (info["seed"], info["step"], info["num"]) == (3, 6, 10)


def test_a_picture_tells_how_it_was_made(digits, points, tmp_path, monkeypatch):
  from jaxgen import cli

  cards = []
  for workdir, more in (
    (digits, ["--temperature=0.5"]),
    (points, ["--steps=3", "--ema=wide", "--step=4"]),
  ):
    out = tmp_path / f"{workdir.name}.png"
    with pytest.raises(SystemExit) as end:
      cli.main(
        [
          "jaxgen",
          "sample",
          f"--workdir={workdir}",
          f"--out={out}",
          "--num=4",
          "--seed=9",
          "--labels=1,2",
          *more,
        ]
      )
    assert end.value.code == 0
    cards.append(pictures.read_info(out))
  vae, diffusion = cards
  assert (vae["seed"], vae["step"], vae["ema"]) == (9, 6, "main")
  assert vae["knobs"]["temperature"] == 0.5
  assert (diffusion["step"], diffusion["ema"]) == (4, "wide")
  assert diffusion["knobs"]["steps"] == 3 and "eta" in diffusion["knobs"]
  assert len(vae["config"]) == 16 and vae["config"] != diffusion["config"]


def test_a_folder_gets_one_picture_each(digits, tmp_path):
  from jaxgen.sampling.output import write

  x = jaxgen.load(digits).sample(0, 3, labels=[4, 5, 6])
  write(str(tmp_path / "new"), x, np.array([4, 5, 6]), {"seed": 0})
  files = sorted((tmp_path / "new").iterdir())
  assert [pictures.read_info(f)["label"] for f in files] == [4, 5, 6]


def test_only_what_sampling_needs_is_read(points, monkeypatch):
  asked = []
  load = restore.restore_subset
  monkeypatch.setattr(
    restore,
    "restore_subset",
    lambda workdir, tree, step: asked.append(tree) or load(workdir, tree, step),
  )
  model = jaxgen.load(points)
  assert asked and asked[0].keys() == {"ema"}
  assert asked[0]["ema"].keys() == {"narrow"}
  assert model.state.opt == {} and model.state.ema == {}
  # And these are the averaged weights, not the trained ones.
  trained_ = jaxgen.load(points, ema="none").state.params
  pairs = jax.tree.map(np.array_equal, model.state.params, trained_)
  assert not any(jax.tree.leaves(pairs))


def test_a_width_found_after_training(points):
  """From all kept checkpoints, by the solution of Karras et al. (2024)."""
  steps = disk.steps(points)
  assert steps == [2, 4, 6]
  found = jaxgen.load(points, ema="0.1")
  assert (found.card["ema"], found.card["step"]) == ("0.1", 6)
  # A profile that was stored is found again, from the others and itself.
  stored = jaxgen.load(points, ema="wide").state.params
  again = jaxgen.load(points, ema="0.15").state.params
  for a, b in zip(jax.tree.leaves(stored), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  # By hand: weights of `combination` on what the checkpoints hold.
  points_ = [(step, width) for step in steps for width in (0.05, 0.15)]
  weights = ema.combination(points_, 0.1)
  parts = [
    jaxgen.load(points, ema=name, step=step).state.params
    for step in steps
    for name in ("narrow", "wide")
  ]
  by_hand = jax.tree.map(
    lambda *x: sum(w * np.asarray(a, np.float64) for w, a in zip(weights, x, strict=True)), *parts
  )
  for a, b in zip(jax.tree.leaves(by_hand), jax.tree.leaves(found.state.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert jaxgen.load(points, ema="0.1", step=4).card["step"] == 4
  with pytest.raises(UserError, match="no checkpoint 5"):
    jaxgen.load(points, ema="0.1", step=5)


def test_loading_from_python_wants_no_flags(digits):
  """jaxgen.load in a bare interpreter; and importing jaxgen brings no jax."""
  code = f"""
import sys, jaxgen
assert "jax" not in sys.modules
x = jaxgen.load({str(digits)!r}).sample(0, 2, labels=3)
from absl import flags
assert not flags.FLAGS.is_parsed()
print(x.shape, x.dtype)
"""
  run = subprocess.run(
    [sys.executable, "-c", code], text=True, cwd=ROOT, capture_output=True, timeout=120
  )
  assert (run.stdout, run.stderr) == ("(2, 8, 8, 1) uint8\n", "")


@pytest.mark.parametrize(
  ("ask", "said"),
  [
    (dict(labels=25), "from 0 to 24, got 25"),
    (dict(labels=[1, -2]), "got -2"),
    (dict(steps=0), "steps=0"),
    (dict(steps=4001), "1 to 4000"),
    (dict(guidence=1.0), "did you mean 'guidance'?"),
    (dict(labels=2**70), f"got {2**70}"),
    (dict(churn=1.0), "with the sampler ancestral has no knob 'churn'; heun h"),
    (dict(eta=-0.1), "eta=-0.1: want at least 0"),
    (dict(frac=1.1), "frac=1.1: want 0 to 1"),
    (dict(steps=2.5), "steps=2.5: want a whole number"),
    (dict(lo=float("inf")), "lo=inf: want a finite number"),
    (dict(guidance="much"), "guidance='much': want a number"),
    (dict(eta=100.0), "samples hold NaN or infinity, eta=100"),
  ],
)
def test_strange_wishes(points, ask, said):
  with pytest.raises(UserError, match=said):
    jaxgen.load(points).sample(0, 2, **ask)


@pytest.mark.parametrize(
  "value", ["nan", "inf", "-inf", "-1", "0", "1e400", "1e30", "0.5", "text", ""]
)
@pytest.mark.parametrize("name", [*KNOBS, "steps_1", "level_0"])
def test_a_knob_takes_numbers_of_its_range(name, value):
  kind = name.partition("_")[0] if name[-1].isdigit() else name
  default = np.inf if kind in ("hi", "s_max", "cap", "truncation", "cutoff") else 1.0
  try:
    x = float(value)
    good = (np.isfinite(x) or x == default) and {
      "steps": 1 <= x <= 4000,
      "frac": 0 <= x <= 1,
      "level": 0 <= x <= 1,
      "first": 0 < x <= 1,
      "bend": x > 0,
      "omega": x > 0,
      "t_min": 0 <= x <= 1,
      "t_max": 0 <= x <= 1,
      "truncation": x > 0,
      "psi": True,
      "guidance": True,
      "scale": True,
      "auto": True,
    }.get(kind, x >= 0)
  except ValueError:
    good = False
  if good:
    return presets.check_knob(name, value, default)
  with pytest.raises(UserError, match=f"^{name}=.*: want "):
    presets.check_knob(name, value, default)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 2**70])
def test_a_seed_that_would_be_another(seed):
  with pytest.raises(UserError, match=f"seed={seed}: want 0 to 4294967295"):
    key_of(seed)
  a, b = (jax.random.key_data(key_of(s)).tolist() for s in (0, 2**32 - 1))
  assert a != b


@pytest.mark.parametrize("num", [0, -1, 10**9, 2**31, 2**63, 2**70])
def test_as_many_samples_as_can_be(num, digits):
  vae = dataclasses.replace(jaxgen.load(digits), shape=(512, 512, 3))
  with pytest.raises(UserError, match=f"num={num}: "):
    vae.sample(0, num)


def test_the_noise_of_a_vae_is_a_knob(digits):
  vae = jaxgen.load(digits)
  assert not np.array_equal(vae.sample(0, 4, noise=1.0), vae.sample(0, 4))


def test_walks_and_rests_are_counted(digits):
  vae = jaxgen.load(digits)
  gan = dataclasses.replace(vae, model=object.__new__(GAN))
  with pytest.raises(UserError, match="2 rows of 10000000000 frames: want"):
    latents.interpolate(gan, 0, 2, 10**10)


def test_a_used_folder(digits, tmp_path, capsys, monkeypatch):
  """Refused before anything is drawn, but for what the same began."""
  ask = lambda *more: call(
    capsys,
    monkeypatch,
    "sample",
    f"--workdir={digits}",
    f"--out={tmp_path / 'new'}",
    "--num=3",
    *more,
  )
  new = f"3 samples -> {tmp_path / 'new'}"
  assert ask() == (0, new + "\n", [])
  whole = tree(tmp_path)
  (tmp_path / "new" / "000001.png").unlink()
  assert ask() == (0, new + " (replaced)\n", [])
  assert tree(tmp_path) == whole
  monkeypatch.setattr(sampler.Sampler, "sample", None)
  for more in ("--seed=1", "--labels=1", "--num=2", "--temperature=0.5"):
    status, _, lines = ask(more)
    assert (
      status == 2
      and "files that this command does not" in lines[0]
      or ("1 file that this command does not" in lines[0])
    )
  assert tree(tmp_path) == whole


def test_only_guided_models_know_the_label_any(digits):
  with pytest.raises(UserError, match="got -1"):
    jaxgen.load(digits).sample(0, 2, labels=-1)


def test_the_sampler_can_be_changed(points, digits):
  ours = jaxgen.load(points)
  ddim, heun = (jaxgen.load(points, sampler=s) for s in ("ancestral", "heun"))
  assert heun.card["sampler"] == "diffusion.samplers.heun"
  assert "eta" in ddim.model.knobs and "eta" not in heun.model.knobs
  x = ours.sample(0, 16, eta=0.0)
  np.testing.assert_array_equal(ddim.sample(0, 16, eta=0.0), x)
  assert not np.array_equal(heun.sample(0, 16), x)
  with pytest.raises(UserError, match="did you mean 'heun'"):
    jaxgen.load(points, sampler="huen")
  with pytest.raises(UserError, match="but ancestral, ddim, .*, sde_heun$"):
    jaxgen.load(points, sampler="zzz")
  with pytest.raises(UserError, match="does not sample in steps"):
    jaxgen.load(digits, sampler="heun")
