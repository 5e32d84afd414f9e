"""What is odd is refused by name before any work: flags, configs, values."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import ConfigDict
from verbs import POINTS, call

from jaxgen import cli, config, sharding
from jaxgen.config import build, find
from jaxgen.convert.initial_state import DataSpec
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, check_attention, open_data
from jaxgen.nets.unet import UNet
from jaxgen.sampling import presets
from jaxgen.train import overview

CONFIGS = sorted(p.stem for p in config.OURS.glob("[!_]*.py"))


def flags_of(verb):
  module = importlib.import_module(f"jaxgen.{cli.VERBS[verb][0]}")
  values = flags.FlagValues()
  module.define(values)
  return module, {name: values[name].flag_type() for name in values}


FLAGS = [(verb, name, kind) for verb in cli.VERBS for name, kind in flags_of(verb)[1].items()]


def parse(verb, *argv):
  return cli.parse(flags_of(verb)[0], [f"jaxgen {verb}", *argv])


@pytest.mark.parametrize("text", ["-1", str(2**31), str(10**20), "x", "1.5", "nan", ""])
@pytest.mark.parametrize(("verb", "name"), [(v, n) for v, n, kind in FLAGS if kind == "int"])
def test_whole_numbers_of_flags(verb, name, text):
  if (name, text) == ("seed", str(2**31)):
    text = str(2**32)  # that of 0 again
  with pytest.raises(UserError, match=f"--{name}={text}.*want a"):
    parse(verb, f"--{name}={text}")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "x", ""])
@pytest.mark.parametrize(("verb", "name"), [(v, n) for v, n, kind in FLAGS if kind == "float"])
def test_numbers_of_flags(verb, name, text):
  with pytest.raises(UserError, match=f"--{name}=.*want a (finite )?number"):
    parse(verb, f"--{name}={text}")


@pytest.mark.parametrize(
  ("verb", "name", "kind"),
  [
    case
    for case in FLAGS
    if case[2] not in ("int", "float", "bool") and case[1] not in cli.NEEDED and case[1] != "over"
  ],
)
def test_empty_flags(verb, name, kind):
  many = [f"--{name}=,"] if "comma" in kind else []
  for word in (f"--{name}=", *many):
    with pytest.raises(UserError, match=f"--{name}=.*empty"):
      parse(verb, word)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_know_their_arguments(name):
  for arg in ("nonsense", "debgu", "-1", "²", "0", "debug ", "None"):
    with pytest.raises(UserError, match=f"{name}.py has no '{arg}'"):
      config.load(f"configs/{name}.py:{arg}")
  with pytest.raises(UserError, match="did you mean 'debug'"):
    config.load(f"{name}:debgu")
  assert isinstance(config.load(f"{name}:debug"), ConfigDict)
  assert config.load(f"{name}:") == config.load(name)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_configs_promise_is_there(name):
  from importlib.util import module_from_spec, spec_from_file_location

  config.share_siblings(str(config.OURS / f"{name}.py"))
  spec = spec_from_file_location("promise", config.OURS / f"{name}.py")
  module = module_from_spec(spec)
  spec.loader.exec_module(module)
  for arg in module.ARGS:
    for word in (arg[0], arg[-1]) if isinstance(arg, range) else (arg,):
      loaded = config.load(f"{name}:{word}")
      if "stages" not in loaded:
        assert Experiment.of(loaded).model


FILES = {
  "kind": ("mine.txt", "hello", "is no config"),
  "dict": ("mine.py", "def get_config():\n  return {}\n", "gives a dict"),
  "none": ("mine.py", "def get_config():\n  pass\n", "gives a NoneType"),
  "exit": ("mine.py", "raise SystemExit(3)\n", "SystemExit"),
  "bytes": ("mine.py", "\0\1", "does not load"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_configs(case, tmp_path):
  name, text, said = FILES[case]
  (tmp_path / name).write_text(text)
  with pytest.raises(UserError, match=said):
    config.load(str(tmp_path / name))


def test_a_config_that_takes_no_argument(tmp_path):
  (tmp_path / "mine.py").write_text("def get_config():\n  pass\n")
  with pytest.raises(UserError, match="takes no argument: leave ':debug'"):
    config.load(f"{tmp_path / 'mine.py'}:debug")


@pytest.mark.parametrize(
  ("word", "said"),
  [
    ("model.classes=3", "config.model has no 'classes'"),
    ("model.gen.widht=3", "config.model.gen has no 'widht'; did you mean 'wi"),
    ("steps.x=3", "config.steps has no 'x'"),
    ("model.penalties[9]=3", r"config.model.penalties\[9\]: there is no \[9\]"),
    ("=3", "config has no ''"),
  ],
)
def test_overrides_say_where(word, said):
  with pytest.raises(UserError, match=said):
    parse("train", POINTS, f"--config.{word}")


# Fields of points_gan:debug, and what they cannot be.
VALUES = {
  "seed": [-1, 2**32, True],
  "steps": [0, 2**31, 2**64],
  "batch": [1.5, None],
  "mesh.data": [-1],
  "data.crop": ["x", 2.0],
  "data.source": [3],
  "data.flip": ["no"],
  "log.every": [0],
  "model.gen.width": [0, -3, 2.5, 2**40, "wide", None],
  "model.gen.depth": [-1],
  "model.z_dim": [0],
  "model.gen_every": [0, -1],
  "model.mixing": [1.5],
  "optim.gen.lr": [-1e-3, float("nan"), "x"],
  "optim.gen.b1": [1.0, 1.5, -0.1],
  "optim.gen.b2": [2.0],
  "optim.gen.eps": [-1.0],
  "optim.gen.every": [0],
  "optim.gen.warmup": [-1],
  "optim.gen.clip": [0.0],
  "optim.gen.decay": [3],
  "ema.main.images": [-1],
  "ema.main.ramp": [-0.1],
}


@pytest.mark.parametrize(("path", "value"), [(p, v) for p in VALUES for v in VALUES[p]], ids=str)
def test_values_that_cannot_be(path, value):
  c = ConfigDict(config.load("points_gan:debug").to_dict())
  *groups, name = path.split(".")
  place = c
  for group in groups:
    place = place[group]
  with place.ignore_type():
    place[name] = value
  with pytest.raises(UserError, match=f"{name}={value!r}: want"):
    Experiment.of(c)


@pytest.mark.parametrize(
  "spec",
  [
    dict(name="nets.unet.UNet", mults=()),
    dict(name="nets.unet.UNet", mults=3),
    dict(name="nets.unet.UNet", mults=(1, 0)),
    dict(name="nets.unet.UNet", attend=(-1,)),
    dict(name="nets.unet.UNet", learned=1),
    dict(name="nets.unet.UNet", eps=-1),
    dict(name="nets.unet.UNet", enlarge=3),
    dict(name="nets.resgan.Generator", widths=[]),
    dict(name="diffusion.times.karras", lo=3.0, hi=2.0),
    dict(name="diffusion.process.Linear", steps=0),
    dict(name="models.gan.Penalty", fn=None, every=0),
    dict(name="adversarial.ada.ADA", p=1.5),
  ],
)
def test_arguments_that_cannot_be(spec):
  with pytest.raises(UserError, match=f"{spec['name']}: .*want"):
    build(spec)


DEFAULTS = """
  optim.adam optim.rmsprop nets.unet.UNet nets.biggan.Generator models.diffusion.Diffusion
  models.gan.GAN diffusion.samplers.heun adversarial.ada.ADA nets.stylegan2.Generator
  diffusion.times.warped
""".split()


@pytest.mark.parametrize("path", DEFAULTS)
def test_defaults_can_be(path):
  known = inspect.signature(find(path)).parameters
  config.check(path, {k: p.default for k, p in known.items() if p.default is not p.empty}, known)


@pytest.mark.parametrize(
  ("name", "bad", "good"),
  [
    ("truncation", -1, 0.5),
    ("truncation_1", -0.1, 2),
    ("level_2", 1.5, 1),
    ("s_min", -1, 3),
    ("temperature", -1, 0),
    ("bend", 0, 0.1),
    ("first", 0, 1),
    ("guidance", None, -5),
    ("psi", None, -2),
  ],
)
def test_knobs(name, bad, good):
  presets.check_knob(name, good, 1.0)
  if bad is not None:
    with pytest.raises(UserError, match=f"{name}=.*want"):
      presets.check_knob(name, bad, 1.0)


def attentions(net, size):
  """How many levels on the way down have attention."""
  x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
  level = jax.ShapeDtypeStruct((1,), jnp.float32)
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, level)
  return sum(k.startswith("in_") and k.endswith("_attn") for k in shapes["params"])


@pytest.mark.parametrize(("size", "updown"), [(7, False), (12, False), (12, True)])
def test_heights_are_where_attention_is(size, updown):
  net = UNet(width=4, mults=(1, 1, 1), blocks=1, head=4, groups=1, updown=updown)
  heights = net.heights(size)
  others = tuple(set(range(1, 2 * size)) - set(heights))
  assert attentions(net.clone(attend=heights), size) == 3
  assert attentions(net.clone(attend=others), size) == 0


@pytest.mark.parametrize("arg", ["29", "30", "31", "32", "debug"])
def test_images_of_any_size_have_attention(arg):
  c = config.load(f"images_diffusion:{arg}")
  net = build(c.model.net)
  assert set(net.attend) <= set(net.heights(c.data.size)) and net.attend


@pytest.mark.parametrize(
  ("name", "group", "say"),
  [
    ("digits_diffusion", "net", "pixels there are 8, 4"),
    ("biggan", "gen", "pixels there are 8"),
    ("biggan_deep", "disc", "of images of 8 pixels there are"),
  ],
)
def test_attention_at_no_height(name, group, say):
  c = config.load(f"{name}:debug")
  c.model[group].attend = (64,)
  with pytest.raises(UserError, match=f"{group}.attend=.*no height 64;.*{say}"):
    check_attention(Experiment.of(c).model, open_data(c))


@pytest.mark.parametrize(
  ("name", "field", "value", "said"),
  [
    ("digits_gan", "disc.classes", 3, "want 10, for the labels 0 to 9"),
    ("digits_vae", "net.classes", 0, "want 10"),
    ("digits_adm", "net.labels", 10, "want 11, for the labels 0 to 9 and none"),
    ("digits_gan", "classes", 0, "data.classes=10: make them equal"),
    ("digits_vae", "net.size", 3, "in jaxgen.nets.convs, line"),
    ("judge", "net.classes", 9, "want 10"),
  ],
)
def test_nets_and_data_that_do_not_fit(name, field, value, said):
  c = config.load(f"{name}:debug")
  c.model.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=said):
    Experiment.of(c).abstract(open_data(c), sharding.make_mesh())


@pytest.mark.parametrize("name", ["judge", "digits_guide", "photos_judge", "adm_classifier"])
@pytest.mark.parametrize("field", ["pictures", "eval.every"])
def test_classifiers_make_no_samples(name, field):
  c = config.load(f"{name}:debug")
  Experiment.of(c)
  c.log.update_from_flattened_dict({field: 5})
  with pytest.raises(UserError, match="a Classifier makes no samples"):
    Experiment.of(c)


def test_classifiers_want_labels():
  c = config.load("judge:debug")
  c.data.classes = 0
  with pytest.raises(UserError, match="learns labels, and nature has none"):
    Experiment.of(c).abstract(DataSpec("nature", (8, 8, 1), 0), sharding.make_mesh())


@pytest.mark.parametrize(
  ("argv", "said"),
  [
    (
      ["compare", "--configs=digits_vae,judge", "--out={}"],
      "judge is a Classifier: it makes no samples",
    ),
    (["compare", "--configs=cdm:digits", "--out={}"], "stages of a cascade"),
    (["compare", "--configs=points_vae,{}/bad.py", "--out={}"], "gen_every=0"),
    (["plan", "--config=configs/judge.py", "--sample"], "makes no samples"),
    (["bench", "sample", "--config=configs/judge.py"], "makes no samples"),
    (["bench", "data", "--config=configs/cdm.py"], "stages of a cascade"),
    (["bench", "train", POINTS, "--steps=1e30"], "at most"),
    (
      ["import", "--config=configs/cdm.py", "--source=adm", "--checkpoint={}", "--workdir={}/w"],
      "stages of a cascade",
    ),
    (
      ["train", "--config={}/chain.py", "--workdir={}/w"],
      "stage 0, configs/judge.py, is a Classifier",
    ),
    (["train", "--config=/etc/passwd", "--workdir={}/w"], "is no config"),
    (["sample", "--workdir=,", "--out={}/x.png"], "workdir=,: want one"),
    (["sweep", "--workdir=,", "--out={}/x"], "workdir=,: want one"),
    (["evaluate", "--workdir=,"], "workdir=,: want one"),
  ],
)
def test_verbs_refuse(argv, said, capsys, monkeypatch, tmp_path):
  home = tmp_path / "home"
  home.mkdir()
  (home / "bad.py").write_text(
    "from configs import points_gan\n\n\ndef get_config():\n"
    "  c = points_gan.get_config()\n  c.model.gen_every = 0\n  return c\n"
  )
  (home / "chain.py").write_text(
    "from configs import _base\n\n\ndef get_config():\n  return _base.cascade('configs/judge.py')\n"
  )
  status, out, lines = call(capsys, monkeypatch, *(word.replace("{}", str(home)) for word in argv))
  assert (status, out, len(lines)) == (2, "", 1), lines
  assert said in lines[0]
  assert {p.name for p in home.iterdir()} == {"bad.py", "chain.py"}


def test_a_folder_says_how_to_give_its_size(tmp_path):
  with pytest.raises(UserError, match="--config.data.size=32"):
    open_source(f"folder:{tmp_path}")


def test_totals_of_parameters_are_whole():
  params = {"gen": {"w": jnp.zeros((40, 50)), "strength": jnp.zeros(())}}
  table, _, total = overview(params).rpartition("\n")
  assert total == "Total: 2,001 -- 8,004 bytes"
  assert "strength" in table and "Total" not in table
