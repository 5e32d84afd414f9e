"""Sampling with a guide, ADM's respacing, small images to enlarge."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import filled
from verbs import call

import jaxgen
from jaxgen import config, keys, sharding
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.monitor import pictures
from jaxgen.sampling.presets import SAMPLERS
from jaxgen.sampling.sampler import draw

TINY = {"width": 8, "mults": (1,), "head": 8}


def saved(folder, name, **overrides):
  """A checkpoint of a tiny net with weights away from zero: -> workdir."""
  c = config.load(f"configs/{name}.py:debug")
  with c.unlocked():
    if "net" in c.model:
      c.model.net.update(TINY)
    c.update_from_flattened_dict(overrides)
  source = open_data(c)
  state = filled(Experiment.of(c).abstract(source, sharding.make_mesh()))
  with Checkpoints(str(folder), every=1, keep=3) as checkpoints:
    checkpoints.save(0, state, describe(c, source), force=True)
  return folder


@pytest.fixture(scope="module")
def adm(tmp_path_factory):
  return saved(tmp_path_factory.mktemp("adm"), "digits_adm", **{"model.steps": 6})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  """Knows no labels, and is guided all the same."""
  none = dict.fromkeys(("data.classes", "model.classes", "model.net.labels"), 0)
  changes = none | {"model.net.width": 16, "model.steps": 6}
  return saved(tmp_path_factory.mktemp("plain"), "digits_adm", **changes)


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
  return saved(tmp_path_factory.mktemp("guide"), "digits_guide")


@pytest.fixture(scope="module")
def upsampler(tmp_path_factory):
  return saved(tmp_path_factory.mktemp("up"), "adm_upsample256", **{"model.steps": 5})


def test_a_classifier_guides(adm, plain, guide):
  alone = jaxgen.load(adm)
  model = jaxgen.load(adm, classifier=guide)
  assert model.card["classifier"]["workdir"] == str(guide)
  x = alone.sample(0, 8)
  np.testing.assert_array_equal(model.sample(0, 8, scale=0.0), x)
  changes = dict(scale=9.0), dict(guidance=2.0), dict(labels=-1)
  far = [dict(scale=99.0) | kw for kw in ({}, dict(eta=0.0), dict(lo=5.0), dict(steps=3))]
  changed = [model.sample(0, 8, **kw) for kw in (*changes, *far)]
  changed.append(model.sample(3, 8, labels=4))
  assert model.program._cache_size() == 1
  distinct = {y.tobytes() for y in [x, *changed]}
  assert len(distinct) == len(changed) + 1
  # Without a label of its own the diffusion model takes the classifier's.
  model = jaxgen.load(plain, classifier=guide)
  assert model.classes == 10 and jaxgen.load(plain).classes == 0
  ours, theirs = (model.sample(0, 4, labels=y, scale=9.0) for y in (1, 2))
  assert not np.array_equal(ours, theirs)
  free = model.sample(0, 4, labels=-1, scale=9.0)
  np.testing.assert_array_equal(free, model.sample(0, 4, scale=0.0))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_can_be_guided(adm, guide, name):
  model = jaxgen.load(adm, classifier=guide, sampler=name)
  batch = {"x": jnp.zeros((2, 8, 8, 1)), "y": jnp.zeros(2, int)}
  x = jax.eval_shape(
    model.model.sample, model.state, batch, keys.example_keys(jax.random.key(0), 2)
  )
  assert x.shape == (2, 8, 8, 1)
  nfe = functools.partial(model.model.nfe, steps=4)
  assert nfe(guidance=2.0) - nfe() == nfe(scale=0.0) == nfe() // 2


def test_a_worse_model_guides(adm, plain):
  model = jaxgen.load(adm, worse=plain, sampler="ddim", guide_ema="none")
  alone, some, more = (model.sample(0, 8, auto=w) for w in (1.0, 2.0, 4.0))
  np.testing.assert_array_equal(model.sample(0, 8), some)
  assert not np.array_equal(some, alone) and not np.array_equal(some, more)
  assert model.program._cache_size() == 1
  assert model.card["worse"]["ema"] == "none"


def test_respacing_is_adms(adm):
  model = jaxgen.load(adm, sampler="ddim", respacing="ddim10")
  assert (model.model.knobs["steps"], model.model.knobs["eta"]) == (10, 0.0)
  strided = model.model.process(np.arange(0, 1000, 100)[::-1] / 1000 + 1e-3)
  path = model.model.path(model.model.process, np.arange(10), 10)
  np.testing.assert_allclose(path, strided.t, rtol=1e-6)
  assert model.card["respacing"] == "ddim10"
  assert model.settings({"steps": 10}) == model.settings({})
  with pytest.raises(UserError, match="respacing=ddim10 makes 10"):
    model.settings({"steps": 9})
  for spacing, said in (
    ("ddim300", "no whole stride"),
    ("x", "want one like"),
    ("2000", "2000 points"),
  ):
    with pytest.raises(UserError, match=said):
      jaxgen.load(adm, respacing=spacing)


def test_respacing_by_rule_takes_any_number_of_steps(adm):
  model = jaxgen.load(adm, respacing="karras")
  assert model.settings({"steps": 7})["steps"] == 7
  times = lambda n: np.asarray(model.model.path(model.model.process, np.arange(n), n))
  np.testing.assert_allclose(times(9)[[0, -1]] > [0.5, 0], True)
  assert (np.diff(times(9)) < 0).all() and times(9)[-1] == np.float32(1e-3)


def test_small_images_are_enlarged(upsampler):
  model = jaxgen.load(upsampler)
  small = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8)
  x = model.sample(0, 6, batch=4, low_res=small)
  assert x.shape == (6, 8, 8, 1)
  again = np.concatenate([small, small])
  np.testing.assert_array_equal(model.sample(0, 6, batch=4, low_res=again), x)
  other = model.sample(0, 6, batch=4, low_res=again[::-1])
  assert not np.array_equal(other, x)
  assert model.program._cache_size() == 1
  for wrong, said in (
    (dict(), "from low_res: give it"),
    (dict(low_res=small[:, :2]), r"want uint8 \[n, 4, 4, 1"),
    (dict(low_res=small / 255.0), "low_res is float64"),
    (dict(low_res=small, size=3), "no knob 'size'"),
  ):
    with pytest.raises(UserError, match=said):
      model.sample(0, 6, **wrong)


def test_pictures_of_training_enlarge_real_images(upsampler):
  model = jaxgen.load(upsampler)
  shapes = {"x": jax.ShapeDtypeStruct((2, 8, 8, 1), np.uint8)}
  picture = jax.jit(
    functools.partial(draw, model.model, None, shapes, 0, model.state, jax.random.key(0))
  )
  real = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 1), np.uint8)
  y = np.array([3, 4], np.int32)
  ours, theirs = (picture(real={"x": x, "y": y}) for x in (real[:2], real[2:]))
  assert not np.array_equal(ours, theirs)
  # It is what they look like in small that counts.
  blocks = real[:2].reshape(2, 4, 2, 4, 2, 1).swapaxes(2, 3)
  moved = blocks[..., ::-1, ::-1, :].swapaxes(2, 3).reshape(2, 8, 8, 1)
  np.testing.assert_allclose(np.int32(picture(real={"x": moved, "y": y})), ours, atol=1)


def test_the_verb_takes_all_that(adm, guide, upsampler, tmp_path, capsys, monkeypatch):
  out = tmp_path / "guided.npz"
  run = functools.partial(call, capsys, monkeypatch, "sample")
  flags = "--scale=3 --num=4 --hi=5 --respacing=2,4".split()
  assert run(f"--workdir={adm}", f"--classifier={guide}", *flags, f"--out={out}")[0] == 0
  with np.load(out, allow_pickle=False) as file:
    info = json.loads(str(file["info"]))
    assert len(file["arr_0"]) == 4
  assert info["classifier"]["dataset"] == "digits"
  assert info["knobs"]["scale"] == 3.0 and info["knobs"]["steps"] == 6
  assert (info["knobs"]["hi"], info["respacing"]) == (5.0, "2,4")
  # These are too large for the upsampler; those of half the size are not.
  run = functools.partial(run, f"--workdir={upsampler}", "--batch=2")
  status, _, err = run(f"--low_res={out}", f"--out={tmp_path / 'x.png'}")
  assert status == 2 and "low_res is uint8 [4, 8, 8, 1]" in err[-1]
  np.savez(tmp_path / "small.npz", np.zeros((3, 4, 4, 1), np.uint8), np.array([7, 8, 9]))
  png = tmp_path / "large.png"
  assert run(f"--out={png}", f"--low_res={tmp_path / 'small.npz'}")[0] == 0
  info = pictures.read_info(png)
  assert info["num"] == 3 and len(info["low_res"]["digest"]) == 16
  assert pathlib.Path(info["low_res"]["file"]).name == "small.npz"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
  return {
    name: saved(tmp_path_factory.mktemp(name), *spec[:1], **spec[1])
    for name, spec in {
      "gan": ("points_gan", {}),
      "large": ("digits_guide", {"data.size": 16}),
      "cosine": ("digits_guide", {"model.process.name": "diffusion.process.Cosine"}),
      "five": ("digits_guide", {"data.classes": 0, "model.net.classes": 12}),
    }.items()
  }


@pytest.mark.parametrize(
  ("ask", "said"),
  [
    (dict(classifier="adm"), "is a Diffusion: to guide takes a Classifier"),
    (dict(worse="guide"), "is a Classifier: to guide takes a Diffusion"),
    (dict(worse="guide", classifier="guide"), "not both"),
    (dict(guide_step=3), "there is none"),
    (dict(classifier="cosine"), "process Cosine.*must be the same"),
    (dict(classifier="large"), r"\[16, 16, 1\], the model on \[8, 8, 1\]"),
    (dict(classifier="five"), "knows 0 classes, the model 10"),
    (dict(sampler="dimm"), "did you mean 'ddim'"),
  ],
)
def test_strangers(adm, guide, strangers, ask, said):
  places = {"adm": adm, "guide": guide} | strangers
  with pytest.raises(UserError, match=said):
    jaxgen.load(adm, **{k: places.get(v, v) for k, v in ask.items()})


def test_only_diffusion_models_are_guided(guide, strangers):
  with pytest.raises(UserError, match="the model is a GAN"):
    jaxgen.load(strangers["gan"], classifier=guide)
  with pytest.raises(UserError, match="knows none: leave it"):
    jaxgen.load(strangers["gan"], respacing="250")
