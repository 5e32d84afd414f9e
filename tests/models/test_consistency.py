"""Consistency models: what the target net follows, and what a teacher gives."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import apart, filled, jit, same

import jaxgen
from jaxgen import config, core, train
from jaxgen.checkpoint import pretrained, restore
from jaxgen.compare.costs import codec_cost
from jaxgen.config import build
from jaxgen.diffusion import time_pairs
from jaxgen.errors import UserError
from jaxgen.evaluation import bits_per_dim
from jaxgen.experiment import Experiment, open_data
from jaxgen.keys import example_keys, fold, normal

pytestmark = pytest.mark.usefixtures("unoptimised")
N, SEED, MU = 8, jax.random.key(3), 0.75
KEYS = example_keys(SEED, N)
EDM = dict(name="diffusion.precond.edm")
SPEC = dict(
  name="models.consistency.Consistency",
  net=dict(name="nets.mlp.Denoiser", width=16, depth=1),
  process=dict(name="diffusion.process.EDM"),
  precond=dict(name="diffusion.precond.boundary"),
  draw_t=dict(
    name="diffusion.time_pairs.neighbours",
    levels=dict(name="diffusion.time_pairs.doubled", steps=8),
  ),
  path=dict(name="diffusion.times.jumps"),
  sampler=dict(name="diffusion.samplers.consistency"),
  steps=2,
)
AVERAGE = dict(name="diffusion.time_pairs.constant", mu=MU)
HALVED = dict(name="diffusion.time_pairs.halved", every=2, n_0=4)
RULES = {
  "training": dict(decay=AVERAGE),
  "improved": dict(
    weighting=dict(name="diffusion.time_pairs.inverse_gap"),
    distance=dict(name="diffusion.time_pairs.pseudo_huber"),
  ),
  "distillation": dict(
    decay=AVERAGE, target=dict(name="diffusion.time_pairs.distillation"), teacher=EDM
  ),
  "progressive": dict(
    precond=EDM,
    draw_t=dict(name="diffusion.time_pairs.strides", levels=HALVED),
    decay=dict(name="diffusion.time_pairs.renewed", levels=HALVED),
    target=dict(name="diffusion.time_pairs.two_in_one"),
    teacher=EDM,
  ),
}


def points(n=N):
  return {"x": jnp.asarray(np.random.default_rng(0).normal(size=(n, 2)), jnp.float32)}


@functools.cache
def made(rule):
  """-> the model, its state with random weights, (accumulate) -> its train step."""
  model = build(SPEC | RULES[rule])
  tx = {"net": optax.sgd(0.1)}
  state = filled(jax.eval_shape(core.make_init(model, tx, ("main",)), points(), SEED))
  state = state.replace(step=jnp.int32(0), skips=jnp.zeros(2, jnp.int32))
  if model.decay:
    state.stats["target"]["moved"] = jnp.int32(0)
  steps = {
    n: functools.partial(
      jit(core.make_step(model, tx, {"main": lambda step: 0.5}, n), static_argnums=0), (0,)
    )
    for n in (1, 2)
  }
  return model, state, steps


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_loss_is_what_its_parts_say(rule):
  model, state, _ = made(rule)
  state, x = state.replace(step=jnp.int32(3)), points()["x"]
  stats = model.followed(state)
  t, s = model.draw_t(fold(KEYS, 0), 2, state.step)
  z = normal(fold(KEYS, 1), (2,))

  def D(params, precond):
    asked = dataclasses.replace(model, precond=precond)
    own = state.replace(params=state.params | {"net": params})
    return lambda x_t, t: asked.D(own, {}, x_t, model.process(t))

  net = state.params["net"]
  theirs = stats["target"]["params"] if model.decay else net
  teacher = D(state.params["teacher"], model.teacher) if rule == "distillation" else None
  target = model.target(x, z, t, s, D(theirs, model.precond), teacher)
  gap = D(net, model.precond)(x + t * z, t) - target
  want = jnp.mean(model.weighting(t, s)[:, 0] * model.distance(gap))
  (loss, (new, _)), slope = jit(jax.value_and_grad(model.loss, has_aux=True, allow_int=True))(
    state, points(), KEYS
  )
  assert apart(loss, want) < 1e-4
  assert same(new, stats)
  frozen = [slope.params.get("teacher", ()), slope.stats.get("target", {}).get("params", ())]
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen))
  assert np.any(jax.tree.leaves(slope.params["net"])[0])


@pytest.mark.parametrize("parts", [1, 2])
def test_the_target_net_follows_each_move_once(parts):
  """However many parts a batch has; as in Song et al.'s code, after each move."""
  _, state, steps = made("training")
  want = state.params["net"]  # at the first step, whatever stands there
  for i in range(4):
    state, _ = steps[parts](state, points(), SEED)
    assert apart(state.stats["target"]["params"], want) < 1e-5
    assert state.stats["target"]["moved"] == i
    want = jax.tree.map(lambda a, b: MU * a + (1 - MU) * b, want, state.params["net"])


@pytest.mark.parametrize("rule", ["training", "improved", "distillation"])
def test_parts_of_a_batch_make_its_gradient(rule):
  _, state, steps = made(rule)
  whole, split = (steps[n](state, points(), SEED)[0] for n in (1, 2))
  assert apart(whole.params, split.params) < 1e-4


def test_the_student_becomes_the_teacher():
  """In rounds of 2 steps of 4, and then twice as long: 2 and 1."""
  model, state, steps = made("progressive")
  assert set(state.params) == {"net"}  # the teacher is the target net
  seen = [state.params["net"]]
  for i in range(6):
    state, _ = steps[1](state, points(), SEED)
    own = state.stats["target"]["params"]
    assert same(own, seen[0 if i < 2 else 2]), i
    seen.append(state.params["net"])
  assert [int(model.draw_t.keywords["levels"](jnp.int32(k))) for k in range(8)] == [
    *(4, 4, 2, 2, 2, 2, 1, 1)
  ]


def test_one_program_for_all_numbers_of_steps():
  model, state, _ = made("training")
  sample, seen = jit(model.sample), []
  for n in range(1, 9):
    seen.append(np.asarray(sample(state, points(), KEYS, steps=jnp.float32(n))))
    assert model.nfe(steps=n) == n
  assert sample._cache_size() == 1
  assert np.isfinite(seen).all() and len(np.unique(np.stack(seen)[:, 0, 0])) == 8


@pytest.mark.parametrize(
  "arg, count",
  [
    *((f"{kind}_imagenet64", 295_899_267) for kind in ("cd", "ct", "edm")),
    *((f"{kind}_bedroom", 526_304_771) for kind in ("cd", "ct", "edm")),
    *((f"{kind}_cifar", 57_117_955) for kind in ("ict", "ect")),
    *((f"digits{rule}", 426_961) for rule in ("", "-ect", "-cd", "-pd")),
    *((f"photos{rule}", 761_356) for rule in ("", "-ect", "-cd", "-pd")),
    *(("points", 43_394), ("stacked", 426_771)),
  ],
)
def test_presets(arg, count):
  c = config.load(f"configs/consistency.py:{arg}")
  model, size = build(c.model), c.data.size or (32 if "cifar" in arg else 8)
  shape = (2,) if arg == "points" else (size, size, 1 if "digits" in arg else 3)
  batch = core.batch_shapes(shape, np.float32, c.data.classes)
  params, _ = jax.eval_shape(model.init, batch, SEED)
  assert sum(leaf.size for leaf in jax.tree.leaves(params["net"])) == count
  assert ("teacher" in params) == (arg.startswith("cd_") or arg.endswith("-cd"))
  if arg.partition("-")[2]:  # begins with a teacher of these configs
    of = {"digits": "digits_diffusion.py", "photos": "images_diffusion.py:32-small"}
    teacher = build(config.load(f"configs/{of[arg.partition('-')[0]]}").model)
    pretrained.check_teacher(model, teacher)


def settings(rule, teacher):
  """A student of `points_diffusion`, by a rule of the small presets."""
  c = config.load(f"configs/consistency.py:digits-{rule}")
  of = config.load("configs/points_diffusion.py:debug")
  c.data = of.data
  c.model.net, c.model.classes, c.model.bound = of.model.net, 0, None
  c.model.precond.sigma_data = c.model.teacher.sigma_data = 0.5
  c.model.teacher_workdir = str(teacher)
  c.steps, c.batch, c.checkpoint.every = 4, 16, 2
  c.log.update(every=2, pictures=0)
  return c


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  """A teacher's, and that of a model distilled from it."""
  folder = tmp_path_factory.mktemp("consistency")
  c = config.load("configs/points_diffusion.py:debug")
  c.steps, c.batch, c.log.pictures = 4, 16, 0
  train.train(c, str(folder / "T"), quiet=True)
  c = settings("cd", folder / "T")
  return folder / "T", folder / "W", c, train.train(c, str(folder / "W"), quiet=True)


def test_a_teacher_is_read_once(workdirs, tmp_path):
  """Averaged; resumed without its workdir, a training ends the same."""
  teacher, _, c, state = workdirs
  _, saved, _ = restore.restore_subset(
    teacher, lambda meta: restore.abstract_leaves(meta, ["ema/main/net"])
  )
  average = saved["ema"]["main"]["net"]
  assert same(state.params["teacher"], average)
  assert set(state.opt) == set(state.ema["main"]) == {"net"}
  source = open_data(c)
  fresh = Experiment.of(c).fresh(source, train.sharding.make_mesh(c.mesh))
  assert same(fresh.params["net"], average) and same(fresh.ema["main"]["net"], average)
  c = c.copy_and_resolve_references()
  c.steps = 2
  train.train(c, str(tmp_path), quiet=True)
  c.steps, c.model.teacher_workdir = 4, "/moved/away"
  assert same(train.train(c, str(tmp_path), quiet=True), state)
  cost = codec_cost(workdirs[2])
  assert cost["workdir"] == str(teacher) and cost["train_images"] == 64 and cost["flops"] > 0


def test_teachers_that_do_not_fit(workdirs, tmp_path):
  teacher, own, c, _ = workdirs
  model, source = Experiment.of(c).model, open_data(c)
  other = lambda **fields: dataclasses.replace(model, **fields)
  read = pretrained.read
  with pytest.raises(UserError, match="names no workdir: train the teacher first, .*_workdir=W"):
    read(other(teacher_workdir=""), source)
  with pytest.raises(UserError, match="teacher_workdir=.*none: there is no folder"):
    read(other(teacher_workdir=str(tmp_path / "none")), source)
  with pytest.raises(UserError, match="a Consistency was trained there: want .*Diffusion"):
    read(other(teacher_workdir=str(own)), source)
  with pytest.raises(UserError, match=r"with net.width=32, .*net.width is 8: make them equal"):
    read(other(net=model.net.clone(width=8)), source)
  with pytest.raises(UserError, match=r"with classes=0, and config.model.classes is 3"):
    read(other(classes=3), source)
  edm = build(EDM | {"sigma_data": 0.6})
  with pytest.raises(UserError, match=r"precond=edm\(sigma_data=0.5, .*edm\(sigma_data=0.6, "):
    read(other(teacher=edm), source)
  line = types.SimpleNamespace(name="line", shape=(3,), class_names=())
  with pytest.raises(UserError, match=r"trained on points:grid25, \(2,\), and line holds \(3,\)"):
    read(model, line)
  with pytest.raises(UserError, match="teacher_workdir names no workdir"):
    train.train(settings("ect", ""), str(tmp_path / "W"), quiet=True)
  assert not (tmp_path / "W").exists()


def test_what_does_not_go_together():
  with pytest.raises(UserError, match="want diffusion.process.EDM"):
    build(SPEC | {"process": dict(name="diffusion.process.Flow")})
  with pytest.raises(UserError, match="takes a teacher: say in config.model.teacher"):
    build(SPEC | {"target": dict(name="diffusion.time_pairs.distillation")})
  assert time_pairs.training is build(SPEC).target


def test_points_are_chosen_when_sampling(workdirs):
  _, own, *_ = workdirs
  model = jaxgen.load(str(own), respacing="0,22/40").model
  at = lambda model, n: np.asarray(model.path(model.process, np.arange(4), n))
  assert model.knobs["steps"] == 2
  grid = time_pairs.ramp(np.arange(40) / 39, 0.01, 20.0, 7.0)
  np.testing.assert_allclose(at(model, 2), grid[[0, 22, 22, 22]], rtol=1e-5)
  model = jaxgen.load(str(own), respacing="jumps").model
  np.testing.assert_allclose(
    at(model, 2)[:2], time_pairs.ramp(np.array([0, 0.5]), 0.01, 20.0, 7.0), 1e-5
  )
  for wrong in ("22,0/40", "1,2/40", "0,40/40", "0,a/40", "/"):
    with pytest.raises(UserError, match="such as 0,22/40"):
      jaxgen.load(str(own), respacing=wrong)
  with pytest.raises(UserError, match="only a diffusion model"):
    bits_per_dim.method_of(jaxgen.load(str(own)), None, None)
