"""The verb control, on weights that nobody trained: pictures, words, refusals."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.stats
from games import filled, same
from pixel_judge import pixel_judge
from verbs import call, tree

from jaxgen import config, sharding
from jaxgen.adversarial import predictors
from jaxgen.checkpoint import pretrained
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.monitor import pictures
from jaxgen.sampling.attribute_sampling import EncoderControl, Request, attribute_of, open_control
from jaxgen.tasks import control as tasks_control
from jaxgen.tasks import control_page, control_table, memorisation


def workdir_of(folder, name, **changes):
  """Random weights, as after a training -> the state."""
  c = config.load(f"configs/{name}").unlock()
  gan = c.model.get("generator", c.model)
  if "gen" in gan:
    gan.gen.update(base=32, most=8)
    gan.disc.update(base=32, most=8)
  else:
    c.model.net.update(width=8, mults=(1,), attend=())
  c.model.update(changes)
  experiment, source = Experiment.of(c), open_data(c)
  state = filled(experiment.abstract(source, sharding.make_mesh()))
  if "encoder" in state.stats:
    own = jax.tree.map(jnp.ones_like, state.stats["encoder"])
    state = state.replace(stats=state.stats | {"encoder": own})
  # Weights of encoders are multiplied by 0.01 in use.
  large = {g: 100.0 if g == "encoder" else 1.0 for g in state.ema["main"]}
  ema = {
    g: jax.tree.map(lambda x, k=large[g]: k * (x + 0.01), p) for g, p in state.ema["main"].items()
  }
  state = state.replace(ema={"main": ema})
  with Checkpoints(str(folder), every=1, keep=2) as checkpoints:
    checkpoints.save(0, state, describe(c, source), force=True)
  return state


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """Workdirs: an encoder and a diffusion model."""
  folder = tmp_path_factory.mktemp("control")
  workdir_of(folder / "E", "gan_control.py:debug-encoder")
  workdir_of(folder / "D", "digits_diffusion.py:debug", steps=3)
  return folder


@functools.cache
def opened(workdir, predictors=(), **guided):
  """Of one workdir and predictor one: programs are compiled once for all tests."""
  return open_control(workdir, predictors, **guided)


def control(capsys, monkeypatch, *argv):
  share = lambda workdir, words=(), **guided: opened(workdir, tuple(words), **guided)
  monkeypatch.setattr(tasks_control, "open_control", share)
  return call(capsys, monkeypatch, "control", *argv)


def test_a_picture_shows_samples_before_and_after(home, tmp_path, capsys, monkeypatch):
  flags = [f"--workdir={home / 'E'}", "--set=slant=0.3,thickness=2", "--num=2"]
  status, out, err = control(capsys, monkeypatch, *flags, f"--out={tmp_path / 'x.png'}")
  assert status == 0 and not err
  assert "slant 0.3: was" in out and "thickness 2: was" in out and "2 samples" in out
  info = pictures.read_info(tmp_path / "x.png")
  assert info["set"] == {"slant": [0.3], "thickness": [2.0]} and info["num"] == 2
  assert info["made by"] == "jaxgen control, GAN-Control" and info["workdir"] == str(home / "E")
  monkeypatch.setattr(memorisation, "open_judge", pixel_judge)
  more = [*flags, "--copies=own"]
  status, out, _ = control(capsys, monkeypatch, *more, f"--out={tmp_path / 'x.npz'}")
  assert status == 0 and "of 2 samples with what is asked for" in out
  arrays = np.load(tmp_path / "x.npz")
  assert arrays["arr_0"].shape == arrays["before"].shape == (2, 8, 8, 1)
  assert arrays["arr_1"].tolist() == [0, 1]
  assert (arrays["arr_0"] != arrays["before"]).any()
  assert json.loads(str(arrays["info"]))["copies"]["count"] == 2


def test_predictors_guide_a_diffusion_model(home, capsys, monkeypatch, tmp_path):
  flags = [f"--workdir={home / 'D'}", "--predictor=thickness", "--set=thickness=2", "--num=2"]
  status, out, _ = control(capsys, monkeypatch, *flags, "--labels=3", f"--out={tmp_path / 'y.npz'}")
  assert status == 0 and "thickness 2: was" in out and "3 passes of the net, 3 backward" in out
  assert np.load(tmp_path / "y.npz")["arr_1"].tolist() == [3, 3]


def test_predictors_have_words(monkeypatch, tmp_path):
  (tmp_path / "my_eyes.py").write_text("def light(x):\n  return x.mean((1, 2, 3))\n")
  monkeypatch.syspath_prepend(str(tmp_path))
  light = attribute_of("my_eyes.light")
  assert light.name == "light" and not light.classes
  np.testing.assert_array_equal(light.value(jnp.ones((2, 3, 3, 1))), [[1.0], [1.0]])
  assert attribute_of("slant").value is predictors.slant


def test_other_values_compile_nothing(home):
  one = opened(str(home / "E"))
  assert isinstance(one, EncoderControl)
  ask = lambda v: one.make(Request({"slant": np.full((2, 1), v)}, np.arange(2), np.zeros(2)))
  (before, a), (_, b) = ask(0.1), ask(-0.4)
  assert one.program._cache_size() == 1 and (a != b).any()
  same_latents = one.sampler.sample(0, 2, labels=0)  # without a wish
  assert np.abs(same_latents.astype(int) - before).max() <= 1
  two = opened(str(home / "D"), ("thickness",), strength=1.0)
  ask = lambda v, control: control.make(
    Request({"thickness": np.full((2, 1), v)}, np.arange(2), np.zeros(2))
  )
  still = dataclasses.replace(two, strength=0.0)
  vars(still)["programs"] = two.programs
  (before, a), (_, b), (_, c) = ask(2.0, two), ask(1.0, two), ask(2.0, still)
  np.testing.assert_array_equal(before, c)
  assert (a != before).any() and (a != b).any()
  (program,) = two.programs.values()
  assert program._cache_size() == 1


@pytest.mark.parametrize(
  "argv, says",
  [
    (["--workdir={E}"], "needs --workdir=W and --out"),
    (["--workdir={E}", "--out=x.png"], "--set names nothing"),
    (["--workdir={E}", "--out=x.png", "--set=slnt=1"], "no attribute 'slnt'; did you mean 'slant'"),
    (["--workdir={E}", "--out=x.png", "--set=class=1"], "takes labels, say --labels"),
    (["--workdir={E}", "--out=x.png", "--set=slant=a"], "want slant=number"),
    (["--workdir={E}", "--out=x.png", "--set=slant=nan"], "a finite one"),
    (["--workdir={E}", "--out=x.png", "--set=slant=1:2"], "slant has 1 numbers, and here are 2"),
    (["--workdir={D}", "--out=x.png", "--set=slant=1"], "say by what it is to be guided"),
    (["--workdir={D}", "--out=x.png", "--predictor=slat", "--set=slant=1"], "did you mean 'slant'"),
    (["--workdir={D}", "--out=x.png", "--predictor=no.such", "--set=a=1"], "No module named 'no'"),
    (["--workdir={D}", "--out=x.png", "--predictor=judge:{E}", "--set=class=1"], "no classifier"),
    (["--workdir={D}", "--out=x.png", "--predictor=slant", "--tolerance=0"], "want more than 0"),
    (["--workdir={E},{D}", "--out=x.png", "--set=slant=1"], "takes one here"),
    (["--workdir={E},{D}", "--out=o", "--table", "--predictor=colour"], "no attribute in common"),
    (["--workdir={E}", "--out=o", "--table", "--set=slant=1"], "--set is for samples"),
    (["--workdir={E}", "--out=o", "--table", "--num=2"], "--num=2: want at least 6"),
    (["--workdir={E}", "--out=o", "--table", "--seeds=0"], "--seeds=0: want at least 1"),
    (["--workdir={E}", "--out=x.png", "--set=slant=1", "--seeds=2"], "--seeds is for --table"),
  ],
)
def test_slips_end_in_one_line(home, argv, says, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  argv = [a.format(E=home / "E", D=home / "D") for a in argv]
  status, _, err = control(capsys, monkeypatch, *argv)
  assert status == 2 and len(err) == 1 and says in err[0]
  assert not tree(tmp_path)


class Network:
  """Sees pixels."""

  def embed(self, x):
    return x.reshape(len(x), -1)[:, ::9] / 255.0


def test_a_table_of_both(home, tmp_path, capsys, monkeypatch):
  judge = types.SimpleNamespace(network=Network(), classifies=False, features="pixels")
  monkeypatch.setattr(control_table, "open_judge", lambda data: judge)
  monkeypatch.setattr(memorisation, "open_judge", pixel_judge)
  out = tmp_path / "report"
  status, text, _ = control(
    capsys,
    monkeypatch,
    f"--workdir={home / 'E'},{home / 'D'}",
    "--predictor=thickness",
    "--table",
    "--seeds=2",
    "--copies=own",
    "--num=8",
    "--batch=2",
    f"--out={out}",
  )
  assert status == 0 and "GAN-Control" in text and "guided diffusion" in text
  card = json.loads((out / "results.json").read_text())
  assert [r["attribute"] for r in card["scores"]] == ["thickness"] * 2
  for row in card["scores"]:
    assert np.isfinite([row["numbers"][k] for k in ("error", "likeness", "frechet")]).all()
  page = (out / "index.html").read_text()
  assert card["seeds"] == 2 and "16 of each method and attribute, in 2 draws" in page
  for row in card["scores"]:
    low, high = row["intervals"]["frechet"]
    assert low < row["numbers"]["frechet"] < high
    assert row["intervals"]["error"][0] < row["numbers"]["error"] < row["intervals"]["error"][1]
    assert row["copies"]["count"] == 16 and 0 <= row["copies"]["share"] <= 1
  assert page.count("data:image/png") == 4 and page.index("<img") < page.index("<table")
  again = control(capsys, monkeypatch, f"--workdir={home / 'E'}", "--table", f"--out={tmp_path}")
  assert again[0] == 2 and "holds something else" in again[2][0]


def test_numbers_are_what_they_say():
  """By hand: an attribute met, another that moved by half a unit, and a likeness."""
  images = open_split(config.load("configs/judge.py").data, "test").arrays()[0][:64]
  judge = types.SimpleNamespace(network=Network(), classifies=False)
  attributes = [
    control_table.Attribute(n, predictors.STATISTICS[n]) for n in ("slant", "thickness")
  ]
  values = {a.name: control_table.evaluate(a, images) for a in attributes}
  units = {"slant": np.float32([2.0]), "thickness": np.float32([0.5])}
  real = control_table.Real(judge, images, values, units, Network().embed(images))
  before, after = images[:32], images[32:]
  each = control_table.compare(attributes, attributes[0], real, values["slant"][32:], before, after)
  numbers, ends = control_table.summary([each], ("same_class",))
  assert numbers["error"] < 1e-6 and "same_class" not in numbers
  gap = lambda name: np.abs(values[name][:32] - values[name][32:]).mean()
  np.testing.assert_allclose(numbers["uncontrolled"], gap("slant") / 2, rtol=1e-5)
  np.testing.assert_allclose(numbers["others"], gap("thickness") / 0.5, rtol=1e-5)
  still = control_table.compare(
    attributes, attributes[0], real, values["slant"][:32], before, before
  )
  np.testing.assert_allclose(still["likeness"], np.ones(32), atol=1e-6)
  np.testing.assert_allclose(still["others"], np.zeros(32), atol=1e-6)
  # Student's interval over samples; of one draw no Fréchet distance has one.
  own = np.abs(values["slant"][:32] - values["slant"][32:])[:, 0] / 2
  want = scipy.stats.t.interval(0.95, 31, own.mean(), own.std(ddof=1) / 32**0.5)
  np.testing.assert_allclose(ends["uncontrolled"], want, rtol=1e-5)
  assert ends.keys() == {"error", "uncontrolled", "likeness", "others"}


def test_draws_are_put_together():
  """Samples of all draws are one; Fréchet distances have an interval over draws."""
  a, b = (
    {"error": np.arange(n, n + 4.0), "frechet": np.asarray(f)} for n, f in ((0, 2.0), (4, 8.0))
  )
  numbers, ends = control_table.summary([a, b], ())
  assert numbers == {"error": 3.5, "frechet": 5.0}
  np.testing.assert_allclose(ends["error"], scipy.stats.t.interval(0.95, 7, 3.5, 6**0.5 / 8**0.5))
  log = scipy.stats.t.interval(0.95, 1, np.log(4), np.log(4) / 2)  # of log 2 and log 8
  np.testing.assert_allclose(ends["frechet"], np.exp(log))
  yes = {"same_class": np.arange(8) < 6}
  _, ends = control_table.summary([yes], ("same_class",))
  z2 = scipy.stats.norm.ppf(0.975) ** 2  # Wilson: roots of (p - 6/8)^2 = z^2 p (1 - p) / 8
  np.testing.assert_allclose(ends["same_class"], sorted(np.roots([8 + z2, -12 - z2, 4.5])))


def test_classes_are_met_as_the_judge_sees_them(monkeypatch):
  """By hand: of four samples three have the class asked for, one had it before."""
  seen = {0: [1, 2, 3, 4], 1: [1, 7, 3, 5]}  # by a pixel: before, after
  monkeypatch.setattr(control_table, "logits", lambda _, x: np.eye(10)[seen[int(x.max())]])
  judge = types.SimpleNamespace(network=Network(), classifies=True, extractor=None)
  attributes = [
    control_table.Attribute("class", None, 10),
    control_table.Attribute("thickness", predictors.thickness),
  ]
  units = {"class": np.ones(1), "thickness": np.ones(1)}
  images = np.zeros((4, 8, 8, 1), np.uint8)
  real = control_table.Real(judge, images, {}, units, Network().embed(images))
  wanted = np.array([[1], [7], [3], [3]])
  numbers = control_table.compare(attributes, attributes[0], real, wanted, images, images + 1)
  assert numbers["error"].tolist() == [False, False, False, True]
  assert numbers["uncontrolled"].tolist() == [False, True, False, True]
  assert "same_class" not in numbers and "others" in numbers
  other = control_table.compare(
    attributes, attributes[1], real, np.zeros((4, 1)), images, images + 1
  )
  assert other["same_class"].tolist() == [True, False, True, False] and "others" not in other


def test_the_page_tells_numbers_from_classes():
  """Means of errors are of numbers alone, and of classes alone."""
  rest = {"likeness": 0.9, "frechet": 3.0, "frechet_before": 2.0}
  of = lambda name, error, free, **kw: control_page.Result(
    "guided", name, rest | {"error": error, "uncontrolled": free}, {"error": (0.1, 0.3)}, "", None,
    **kw,
  )  # fmt: skip
  results = [
    of("slant", 0.2, 1.5),
    of("thickness", 0.4, 2.5),
    of("class", 0.25, 0.9, is_class=True),
  ]
  text = control_page.verdict(results)
  assert text == (
    "Guided misses by 0.30 standard deviations (as they come 2.00), keeps a likeness of 0.90, "
    "meets the class in 75% (as they come 10%)."
  )
  assert control_page.verdict(results[2:]) == "Guided meets the class in 75% (as they come 10%)."
  about = control_page.About(8, 1, "digits-cnn", 359, {}, "jaxgen control")
  page = control_page.page(results, about)
  assert page.count("Units are standard") == 1 and page.count("that the judge, digits-cnn") == 1
  assert "8 of each method and attribute<" in page and "0.100 – 0.300" in page
  assert "0.200 (0.100 to 0.300)" in control_page.text(results)


def test_a_class_that_is_asked_for_leaves_labels_open():
  open_to = lambda classes, free: types.SimpleNamespace(
    sampler=types.SimpleNamespace(classes=classes, model=types.SimpleNamespace(free=free))
  )
  number, of_class = (control_table.Attribute("a", None, n) for n in (0, 10))
  labels = lambda control, a: control_table.labels_for(control, [a], np.arange(3))
  assert labels(open_to(2, True), number).tolist() == [0, 1, 0]
  assert labels(open_to(2, True), of_class).tolist() == [-1, -1, -1]
  assert labels(open_to(2, False), of_class).tolist() == [0, 1, 0]
  assert labels(open_to(0, False), of_class) is None


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
  """A generator whose first attribute is a judge's, its groups and its state."""
  folder = tmp_path_factory.mktemp("gan")
  judge = dict(name="models.gan_control.Judge", net=dict(name="nets.convs.Classifier", width=4))
  c = config.load("configs/gan_control.py:debug").unlock()
  groups = [g.to_dict() if hasattr(g, "to_dict") else dict(g) for g in c.model.groups]
  groups[0]["predictor"] = judge
  return folder, groups, workdir_of(folder / "G", "gan_control.py:debug", groups=groups)


def test_generators_of_another_workdir(gan):
  """Averages of both groups are read, if they are of such a generator."""
  folder, groups, state = gan

  def read(workdir="G", **changes):
    e = config.load("configs/gan_control.py:debug-encoder").unlock()
    e.model.generator.gen.update(base=32, most=8)
    e.model.generator.groups = groups
    for path, value in changes.items():
      e.model.generator.gen[path] = value
    e.model.generator_workdir = str(folder / workdir) if workdir else ""
    return pretrained.read(config.build(e.model), open_data(e))

  params, stats = read()
  assert same(params["gen"], state.ema["main"]["gen"]) and set(params) == {"gen", "predictors"}
  assert same(params["predictors"], state.params["predictors"]) and "average" in stats["gen"]
  with pytest.raises(UserError, match="train the generator first"):
    read("")
  with pytest.raises(UserError, match="that generator was trained with net.base=32"):
    read(base=64)


def test_an_image_is_moved_along_a_style(gan, capsys, monkeypatch, tmp_path):
  image = tmp_path / "a.png"
  PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(image)
  flags = [f"--workdir={gan[0] / 'G'}", f"--image={image}", "--how=sefa", "--projection_steps=2"]
  status, out, err = call(
    capsys, monkeypatch, "edit", *flags, "--direction=2", f"--out={tmp_path / 'y'}"
  )
  assert status == 0 and "1 image" in out, err
  info = pictures.read_info(tmp_path / "y" / "a.png")
  assert info["how"] == "sefa" and info["direction"] == 2 and info["edited"]
  assert info["source"] == "a.png" and "--direction=2" in info["command"]
  page = (tmp_path / "y.html").read_text()
  assert page.index("<img") < page.index("<table") and "no evidence" in page
  for more, says in (
    (["--direction=64"], "--direction=64: want 0 to 63"),
    (["--layers=3"], "--layers=3: want two numbers"),
    (["--operator=grey"], "--how=sefa takes no --operator"),
  ):
    status, _, err = call(capsys, monkeypatch, "edit", *flags, *more, f"--out={tmp_path / 'z.png'}")
    assert status == 2 and says in err[-1]
  assert not (tmp_path / "z.png").exists()
