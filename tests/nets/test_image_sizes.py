"""Configs for one's own images: parameters of every size, what follows labels."""

import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from jaxgen import cli, config, core, train
from jaxgen.config import as_json, build
from jaxgen.experiment import check_attention, check_labels
from jaxgen.keys import example_keys
from jaxgen.plan.programs import data_spec

CONFIGS = pathlib.Path(config.OURS)
KEY = jax.random.key(0)
# Of generator and discriminator, or of the one net.
COUNTS = {
  "diffusion": {
    "32": (58_036_739,),
    "64": (63_087_235,),
    "128": (94_997_763,),
    "256": (80_645_635,),
    "32-small": (761_356,),
    "64-small": (1_197_580,),
    "128-small": (1_218_352,),
    "256-small": (1_301_440,),
  },
  "gan": {
    "32": (19_947_539, 21_507_073),
    "64": (22_243_608, 23_407_361),
    "128": (22_949_277, 23_882_369),
    "256": (23_191_522, 24_001_089),
    "32-small": (233_267, 277_137),
    "64-small": (661_939, 850_961),
    "128-small": (661_147, 721_353),
    "256-small": (2_108_315, 2_622_665),
  },
  "vae": {
    "32": (21_883_395,),
    "64": (28_964_867,),
    "128": (36_046_339,),
    "256": (43_127_811,),
    "32-small": (671_139,),
    "64-small": (2_116_899,),
    "128-small": (7_367_715,),
    "256-small": (14_449_187,),
  },
}


def load(family, arg, **data):
  c = config.load(f"configs/images_{family}.py:{arg}")
  c.data.update(data)
  return c


def batch_of(c, n=2):
  """Shapes of a batch."""
  size = c.data.size
  batch = {"x": jax.ShapeDtypeStruct((n, size, size, c.data.channels), jnp.uint8)}
  return batch | ({"y": jax.ShapeDtypeStruct((n,), jnp.int32)} if c.data.classes else {})


@pytest.mark.parametrize("family", COUNTS)
def test_parameters_are_as_many_as_the_docstring_says(family):
  text = (CONFIGS / f"images_{family}.py").read_text()
  for arg, want in COUNTS[family].items():
    c = load(family, arg)
    model = build(c.model)
    init = lambda b, model=model: model.init(core.on_device(b), KEY)[0]
    params = jax.eval_shape(init, batch_of(c))
    counts = [sum(x.size for x in jax.tree.leaves(params[g])) for g in sorted(params)[::-1]]
    assert counts == list(want), arg
    row = next(line for line in text.splitlines() if line.startswith(f"| {arg} |"))
    assert all(f"{n:,}" in row for n in counts) and f"| {c.batch} |" in row, arg
    check_attention(model, data_spec(c))


@pytest.mark.parametrize("family", COUNTS)
def test_every_size_is_counted(family):
  args = importlib.import_module(f"configs.images_{family}").ARGS
  assert set(COUNTS[family]) == {a for a in args if isinstance(a, str)} - {"debug"}


@pytest.mark.parametrize(
  ("family", "arg"),
  [("diffusion", "32-small"), ("gan", "32"), ("gan", "32-small"), ("vae", "32-small")],
)
def test_labels_and_channels_are_said_once(family, arg):
  c = load(family, arg, classes=7, channels=1, size=32)
  assert not c.model.get("label_drop", 0) or c.model.net.labels == 8
  assert as_json(c) == json.loads(c.to_json())
  plain = c.copy_and_resolve_references()
  assert as_json(plain) == as_json(c)
  model, batch = build(plain.model), batch_of(c, 4)
  check_labels(model, 7, None)
  tx = {g: build(s)(steps=100) for g, s in c.optim.items()}
  ema = {p: build(s)(batch=4) for p, s in c.ema.items()}
  state = jax.eval_shape(core.make_init(model, tx, tuple(ema)), batch, KEY)
  step = core.make_step(model, tx, ema)
  new, _ = jax.eval_shape(lambda *args: step(core.turn(model, 0), *args), state, batch, KEY)
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
  draw = lambda s, b: model.sample(s, core.on_device(b), example_keys(KEY, 4))
  assert jax.eval_shape(draw, state, batch).shape == (4, 32, 32, 1)


@pytest.mark.parametrize("family", COUNTS)
def test_labels_of_the_command_line_reach_the_nets(family):
  argv = [f"--config={CONFIGS}/images_{family}.py:debug", "--config.data.classes=3"]
  c = cli.parse(train, ["jaxgen train", *argv, "--config.data.channels=1"]).config
  assert c.model.classes == 3
  check_labels(build(c.model), 3, None)
  for net in ("net", "gen"):
    assert c.model.get(net, {}).get("channels", 1) == 1


def test_none_is_a_label_only_beside_others():
  from configs._images import with_none

  c = load("diffusion", "32")
  rows = with_none(c.data.get_ref("classes"))
  for n, want in ((0, 0), (1, 2), (2, 3), (1000, 1001)):
    c.data.classes = n
    assert with_none(n) == want == rows.get() == c.model.net.labels
