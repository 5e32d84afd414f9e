"""Walks, mixed styles, standing statistics and projections of small GANs."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import SPECS, filled, jit, same
from verbs import call

from jaxgen import core, sample
from jaxgen.adversarial import prior
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.keys import example_keys, fold, normal
from jaxgen.monitor import pictures
from jaxgen.sampling import latents, projection
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state

STYLEGAN2 = dict(size=8, channels=1, classes=3, base=64, most=8, w_dim=8, layers=2)
STYLES = SPECS["norms"] | dict(gen=dict(name="nets.stylegan2.Generator", **STYLEGAN2))
LAYERS = 4
CARD = {"workdir": "W", "sampler": None, "dataset": "none"}


def sampler(model, shape=(8, 8, 1), classes=3):
  """Of weights away from zero."""
  batch = {"x": jnp.zeros((2, *shape)), "y": jnp.zeros(2, jnp.int32)}
  params, stats = jax.eval_shape(model.init, batch, jax.random.key(0))
  state = filled(core.State(0, params, stats, {}, {}, None))
  state = sampling_state(0, {"gen": state.params["gen"]}, {"gen": state.stats["gen"]})
  return Sampler(model, state, shape, np.dtype(np.uint8), classes, dict(CARD))


@pytest.fixture(scope="module")
def norms():
  """DCGAN with batch norm and labels."""
  return sampler(build(SPECS["norms"]))


@pytest.fixture(scope="module")
def styles():
  """StyleGAN2 with labels, its styles far from each other."""
  one = sampler(build(STYLES))
  gen = one.state.params["gen"]  # layers of the mapping multiply by 0.01
  mapping = jax.tree.map(lambda x: 100 * x, gen["mapping"])
  state = one.state.replace(params={"gen": gen | {"mapping": mapping}})
  return dataclasses.replace(one, state=state)


@pytest.fixture(scope="module")
def vae():
  return Sampler(build(SPECS["vae"]), None, (8, 8, 1), np.dtype(np.uint8), 3, dict(CARD))


def made(of, *args, **kw):
  """What its generator makes."""
  apply = functools.partial(of.model.gen.apply, **{k: kw.pop(k) for k in ("method",) if k in kw})
  return jit(apply)(of.state.variables("gen"), *args, **kw)


def near(a, b):
  """Images, but for rounding."""
  return np.abs(a.astype(int) - b).max() <= 1


def test_latents_walk_on_a_great_circle():
  a = jnp.array([[3.0, 0, 0], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
  b = jnp.array([[0.0, 3, 0], [1, 2, 3], [-1, -2, -3], [-3, 1, 0]])
  t = jnp.full((4, 1), 1 / 3)
  half = latents.spherical(a, b, t)
  # A third of a right angle; a latent to itself; opposite ones: no circle.
  np.testing.assert_allclose(
    half[0], 3 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0]), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(half[1], a[1], rtol=1e-6)
  assert np.isfinite(half).all()
  # Independent normals keep their length where a chord would cut it short.
  x, y = jax.random.normal(jax.random.key(0), (2, 1, 10_000))
  length = lambda x: float(jnp.sqrt(jnp.mean(x**2)))
  assert abs(length(latents.spherical(x, y, 0.5)) - 1) < 0.02
  assert abs(length(latents.linear(x, y, 0.5)) - np.sqrt(0.5)) < 0.02
  for ends in (latents.spherical, latents.linear):
    assert same(ends(a, b, 0 * t), a) and same(ends(a, b, 0 * t + 1), b)


@pytest.mark.parametrize("between", latents.WAYS)
def test_walks_of_latents_and_labels(norms, between):
  x = latents.interpolate(norms, 7, 3, 5, between=between, truncation=0.8)
  assert x.shape == (3, 5, 8, 8, 1) and x.dtype == np.uint8
  i = np.arange(6)
  y = np.repeat(np.arange(3), 2) if between == "z" else i % 3
  # The net itself, on those latents and labels.
  keys = fold(jnp.broadcast_to(jax.random.key(7), (6,)), 2 * (i // 2) if between == "class" else i)
  z = prior.truncated_normal(keys, 4, 0.8)
  weights = np.eye(3, dtype=np.float32)[y]
  ends = np.asarray(core.as_data(made(norms, z, weights), np.uint8))
  ends = ends.reshape(3, 2, 8, 8, 1)
  assert near(x[:, [0, -1]], ends)
  if between != "class":  # where it begins is a plain sample; so is the end
    plain = norms.sample(7, 6, y, truncation=0.8).reshape(ends.shape)
    assert near(x[:, [0, -1]], plain)
  # On its way: the net on weights of labels.
  part = latents.spherical(z[::2], z[1::2], jnp.full((3, 1), 0.25))
  weights = 0.75 * weights[::2] + 0.25 * weights[1::2]
  quarter = made(norms, np.repeat(part, 2, 0), np.repeat(weights, 2, 0))[::2]
  assert near(x[:, 1], np.asarray(core.as_data(quarter, np.uint8)))
  assert (x[:, 1:] != x[:, :-1]).any((2, 3, 4)).all()  # every frame moves


def test_walks_of_styles_are_straight(styles):
  x = latents.interpolate(styles, 1, 2, 3, [0, 1], psi=0.7, cutoff=2)
  plain = styles.sample(1, 4, [0, 0, 1, 1], psi=0.7, cutoff=2)
  assert near(x[:, 0], plain[::2])
  keys = example_keys(jax.random.key(1), 4)
  ws = made(styles, normal(keys, (4,)), jnp.array([0, 0, 1, 1]), psi=0.7, cutoff=2, method="map")
  middle = made(styles, (ws[::2] + ws[1::2]) / 2, fold(keys, 1)[::2], method="synthesize")
  assert near(x[:, 1], np.asarray(core.as_data(middle, np.uint8)))


def test_mixed_styles(styles):
  whole = latents.mix(styles, 3, 2, 3, LAYERS, psi=0.9)
  none = latents.mix(styles, 3, 2, 3, 0, psi=0.9)
  some = latents.mix(styles, 3, 2, 3, 2, psi=0.9)
  assert some.shape == (3, 4, 8, 8, 1) and (some[0, 0] == 255).all()
  for x in (none, some):  # sources stand on the edges, whatever is mixed
    np.testing.assert_array_equal(x[0], whole[0])
    np.testing.assert_array_equal(x[:, 0], whole[:, 0])
  assert near(whole[1, 0], styles.sample(3, 1, psi=0.9)[0])
  for r in range(3):
    for c in range(1, 4):
      if r:
        np.testing.assert_array_equal(whole[r, c], whole[r, 0])
        np.testing.assert_array_equal(none[r, c], none[0, c])
        assert (some[r, c] != whole[r, 0]).any()
        assert (some[r, c] != whole[0, c]).any()


def test_nothing_is_compiled_anew(norms, styles):
  latents._between.clear_cache()
  latents.interpolate(styles, 0, 2, 4)
  latents.interpolate(styles, 5, 4, 2, 1, "both", psi=0.5)
  latents.interpolate(styles, 0, 1, 8, [0, 2], "class", cutoff=3)
  assert latents._between._cache_size() == 1
  for crossover, psi in ((0, 1.0), (2, 0.5), (4, 1.0)):  # as in other tests
    latents.mix(styles, 0, 2, 3, crossover, psi=psi)
  assert latents._between._cache_size() == 2  # a weight for each layer
  latents._settle.clear_cache()
  for truncation in (0.3, 0.6, np.inf):
    latents.settle(norms, truncation, 2, 8)
  assert latents._settle._cache_size() == 1
  known = latents.settle(norms, 0.3, 2, 8)
  assert latents.settle(norms, 0.3, 2, 8) is known
  assert known.program is norms.program  # and to sample, the sampler's own
  assert latents.settle(norms, 0.3, 2, 8, seed=1) is not known


def test_standing_statistics(norms):
  # Latents alone shall vary: not by label, nor from place to place.
  still = jax.tree_util.tree_map_with_path(
    lambda path, x: 0 * x if path[-1].key in ("bias", "embedding") else x, norms.state.params
  )
  norms = dataclasses.replace(norms, state=norms.state.replace(params=still))
  inf, tight = (latents.settle(norms, t, 4, 64) for t in (np.inf, 0.1))
  old, new = (s.state.stats["gen"] for s in (norms, tight))
  assert same(norms.state.params, tight.state.params)
  leaves = lambda stats: jax.tree_util.tree_leaves_with_path(stats)
  for (path, a), (_, b) in zip(leaves(old), leaves(new), strict=True):
    moves = path[0].key == "batch_stats" and path[-1].key in ("mean", "var")
    assert np.array_equal(a, b) != moves, path
  # The first norm sees a linear map of latents: all alike, no variance.
  of = lambda s: min(
    float(jnp.mean(v)) for path, v in leaves(s.state.stats["gen"]) if path[-1].key == "var"
  )
  assert of(tight) < 0.2 * of(inf)
  assert tight.card["standing"] == {"truncation": 0.1, "batches": 4, "batch": 64, "seed": 0}
  assert inf.card["standing"]["truncation"] is None
  assert (tight.sample(0, 4, truncation=0.1) != norms.sample(0, 4, truncation=0.1)).any()


class Linear(nn.Module):
  """x = A z + b."""

  @nn.compact
  def __call__(self, z, y=None):
    return nn.Dense(16)(z).reshape(-1, 4, 4, 1)


def test_the_projection_of_a_linear_generator():
  """Known in closed form: least squares."""
  disc = build(dict(name="nets.convs.Discriminator", width=4))
  gan = dataclasses.replace(build(SPECS["gan"]), gen=Linear(), penalties=(), z_dim=4, disc=disc)
  linear = sampler(gan, (4, 4, 1), 0)
  images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8)
  z, found, losses = projection.project(linear, images, 300)
  assert (z.shape, losses.shape) == ((3, 4), (3, 301))
  layer = linear.state.params["gen"]["Dense_0"]
  A, b = (np.asarray(layer[k], np.float64) for k in ("kernel", "bias"))
  x = (images.reshape(3, 16) - 127.5) / 127.5
  best, *_ = np.linalg.lstsq(A.T, (x - b).T, rcond=None)
  np.testing.assert_allclose(z, best.T, atol=1e-3)
  square = np.mean((best.T @ A + b - x) ** 2, -1)
  np.testing.assert_allclose(losses[:, -1], square, rtol=1e-4)
  assert (losses[:, -1] < losses[:, 0]).all()
  want = np.asarray(core.as_data(jnp.float32(best.T @ A + b), np.uint8))
  np.testing.assert_array_equal(found, want.reshape(found.shape))
  # With features, their errors too: weighted least squares.
  focus = lambda x: x[:, :2]
  far, *_ = projection.project(linear, images, 300, features=focus)
  W = np.where(np.arange(16) < 8, 1, 0) / np.sum(x[:, :8] ** 2, -1)[:, None]
  for i, weight in enumerate(np.sqrt(W + 1 / 16)):
    best, *_ = np.linalg.lstsq((A * weight).T, (x[i] - b) * weight, rcond=None)
    np.testing.assert_allclose(far[i], best, atol=1e-3)
  # An image's latent does not depend on what it is found with.
  one, *_ = projection.project(linear, images[:1], 300, batch=3)
  np.testing.assert_allclose(one, z[:1], atol=1e-4)


@pytest.mark.parametrize("name", ["norms", "styles"])
def test_what_a_generator_made_is_found_again(name, request):
  model = request.getfixturevalue(name)
  size = 4 if name == "norms" else 8
  x = model.sample(2, 2, [1, 2])
  given = {"labels": [1, 2]} if name == "norms" else {}
  found, images, losses = projection.project(model, x, 120, **given)
  assert found.shape == (2, size) and images.shape == x.shape
  print(name, losses[:, 0], losses[:, -1])
  assert (losses[:, -1] < 0.1 * losses[:, 0]).all()
  if name == "styles":  # it began at the mean style: what psi = 0 samples
    w = model.state.stats["gen"]["average"]["w_avg"]
    mean = made(model, jnp.broadcast_to(w, (2, LAYERS, 8)), method="synthesize")
    target = (x.astype(np.float64) - 127.5) / 127.5
    np.testing.assert_allclose(losses[:, 0], np.mean((mean - target) ** 2, (1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(
  ("ask", "said"),
  [
    (lambda m: latents.interpolate(m["vae"], 0, 1, 2), "takes a GAN, and this is a VAE"),
    (lambda m: latents.interpolate(m["norms"], 0, 1, 2, between="y"), "want z, class, both"),
    (lambda m: latents.interpolate(m["norms"], 0, 1, 1), "at least 1 of 2"),
    (lambda m: latents.interpolate(m["norms"], 0, 1, 2, psi=0.5), "a GAN has no knob 'psi'"),
    (lambda m: latents.interpolate(m["norms"], 0, 1, 2, 3), "got 3"),
    (lambda m: latents.mix(m["norms"], 0, 1, 1, 1), "mix takes .*; Generator has no `map`"),
    (lambda m: latents.mix(m["styles"], 0, 1, 1, 5), "mix=5: want 0 to 4"),
    (lambda m: latents.settle(m["styles"], 1.0), "without batch norm has no statistics"),
    (lambda m: latents.settle(m["norms"], 0.0), "truncation=0: want more"),
    (
      lambda m: projection.project(m["norms"], np.zeros((1, 4, 4, 1))),
      r"float64 \[1, 4, 4, 1\]: want uint8 \[n, 8, 8, 1\]",
    ),
    (lambda m: projection.project(m["norms"], np.zeros((1, 8, 8, 1), "u1")), "images' labels"),
  ],
)
def test_strange_wishes(ask, said, request):
  class Models(dict):
    __missing__ = staticmethod(request.getfixturevalue)

  with pytest.raises(UserError, match=said):
    ask(Models())


def drawn(capsys, monkeypatch, model, out, *argv):
  """`jaxgen sample` of this model -> what it wrote."""
  monkeypatch.setattr(sample, "load", lambda *a, **kw: model)
  status, _, lines = call(capsys, monkeypatch, "sample", "--workdir=W", f"--out={out}", *argv)
  assert (status, lines) == (0, [])
  return out


def test_the_verb_walks_and_mixes(norms, styles, tmp_path, capsys, monkeypatch):
  argv = "--num=2 --interpolate=3 --labels=1,2 --truncation=0.5 --standing=2".split()
  out = drawn(capsys, monkeypatch, norms, tmp_path / "a.npz", *argv)
  settled = latents.settle(norms, 0.5, 2)
  with np.load(out) as file:
    x, info = file["arr_0"], json.loads(str(file["info"]))
    assert file["arr_1"].tolist() == [1, 1, 1, 2, 2, 2]
  np.testing.assert_array_equal(
    x.reshape(2, 3, 8, 8, 1), latents.interpolate(settled, 0, 2, 3, [1, 2], truncation=0.5)
  )
  assert info["interpolate"] == {"rows": 2, "frames": 3, "between": "z"}
  assert info["standing"]["batches"] == 2
  assert info["knobs"]["truncation"] == 0.5
  argv = "--num=2 --mix=2 --psi=0.6 --seed=4".split()
  out = drawn(capsys, monkeypatch, styles, tmp_path / "b.png", *argv)
  info = pictures.read_info(out)
  assert info["mix"] == {"rows": 2, "columns": 2, "crossover": 2}
  assert info["knobs"]["psi"] == 0.6 and info["seed"] == 4
  argv = "--num=1 --interpolate=2 --between=class".split()
  out = drawn(capsys, monkeypatch, norms, tmp_path / "c", *argv)
  assert len(list(out.iterdir())) == 2


def test_the_verb_projects(norms, tmp_path, capsys, monkeypatch):
  x = norms.sample(0, 2)
  np.savez(tmp_path / "x.npz", x, np.array([0, 1]))
  project = lambda path: (f"--project={tmp_path / path}", "--project_steps=20")
  out = drawn(capsys, monkeypatch, norms, tmp_path / "found.npz", *project("x.npz"))
  with np.load(out) as file:
    assert file["arr_0"].shape == x.shape and file["arr_1"].tolist() == [0, 1]
    assert file["latents"].shape == (2, 4) and file["losses"].shape == (2, 21)
    np.testing.assert_array_equal(file["given"], x)
  grey = x[0].repeat(3, -1)
  pictures.save_png(tmp_path / "in" / "one.png", grey)
  for path in ("in", "in/one.png"):
    out = drawn(capsys, monkeypatch, norms, tmp_path / "found.png", *project(path), "--labels=0")
    info = pictures.read_info(out)["project"]
    first, last = info["losses"][0]
    assert info["steps"] == 20 and last < first


@pytest.mark.parametrize(
  ("argv", "said"),
  [
    (["--mix=1", "--interpolate=2"], "--interpolate and --mix: one at a time"),
    (["--between=z"], "--between is for --interpolate"),
    (["--project_steps=3"], "--project_steps is for --project"),
    (["--mix=1", "--low_res=x.npz"], "--low_res is for models that enlarge"),
    (["--mix=1"], "has no `map`"),
    (["--interpolate=2", "--between=x"], "between=x: want"),
    (["--project=nowhere.png"], "there is no such file or folder"),
    (["--project=nowhere.npz"], "there is no file nowhere.npz"),
    (["--project=x.png", "--num=3"], "leave --num"),
    (["--standing=-1"], "standing=-1"),
    (["--truncation=-1", "--standing=1"], "truncation=-1"),
  ],
)
def test_refusals_in_one_line(norms, argv, said, capsys, monkeypatch, tmp_path):
  monkeypatch.setattr(sample, "load", lambda *a, **kw: norms)
  status, _, lines = call(
    capsys, monkeypatch, "sample", "--workdir=W", f"--out={tmp_path / 'x.png'}", *argv
  )
  assert status == 2 and len(lines) == 1 and said in lines[0]
  assert not list(tmp_path.iterdir())
