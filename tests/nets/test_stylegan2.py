"""StyleGAN2: the reference's answers, its parts against slow arithmetic."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen.adversarial import path, penalties
from jaxgen.interop import names, stylegan2_names
from jaxgen.nets import fir
from jaxgen.nets.equalised import Dense, Mapping
from jaxgen.nets.stylegan2 import Discriminator, Generator, Layer, minibatch_stddev, modulated_conv

SMALL = dict(base=1024, most=64, classes=10, clamp=256.0)
TINY = dict(clamp=1.5, base=256, most=24)
# Golden file -> our generator, our discriminator, how its truncated styles were
# made.
NETS = {
  "stylegan2_32_class": (
    dict(size=32, w_dim=64, layers=2, **SMALL),
    dict(group=2, **SMALL),
    "ws_truncated_0_7",
    (0.7, None),
  ),
  "stylegan2_16_none": (
    dict(size=16, channels=1, w_dim=20, layers=3, arch="resnet", **TINY),
    dict(arch="skip", group=4, features=2, **TINY),
    "ws_psi_0_5_cutoff_3",
    (0.5, 3.0),
  ),
  "stylegan2_8_class_orig": (
    dict(size=8, base=128, most=16, w_dim=20, layers=2, classes=5, arch="orig"),
    dict(arch="orig", base=128, most=16, classes=5, mapped=10, layers=2, group=None),
    "ws_psi_0_5_cutoff_3",
    (0.5, 3.0),
  ),
}


def weights(entries, seed, given):
  """By the rule of golden/README.md; `given`: of the given case."""
  tensors = {}
  for name, z, buffer in draws(seed, entries):
    last = name.rpartition(".")[2]
    mapping = np.float32(100 if name.startswith("mapping.fc") else 1)
    if buffer:
      continue
    if z.ndim < 2:
      z = np.float32(0.1) * z + np.float32(name.endswith("affine.bias"))
      z += np.float32(given and last == "noise_strength") / 2
      tensors[name] = z * mapping if given else z
    elif given and last in ("const", "noise_const"):
      tensors[name] = scaled(z)
    else:
      tensors[name] = z * mapping
  return tensors


def filled(net, group, *args):
  """-> (names, numbers of theirs) -> our variables."""
  shapes = jax.eval_shape(net.init, jax.random.key(0), *args)
  table = stylegan2_names.entries(group, shapes)
  return lambda tensors: names.fill(table, tensors)


@functools.cache
def published(case):
  """-> generator, discriminator, variables of both, the reference's numbers."""
  gen, disc, *_ = NETS[case]
  golden = dict(np.load(GOLDEN / f"{case}.npz"))
  golden["x"] = golden["x"].transpose(0, 2, 3, 1)
  manifest = json.loads(str(golden["manifest"]))
  gen, disc = Generator(**gen), Discriminator(**disc)
  y = golden.get("c")
  rule = functools.partial(weights, given=case == "stylegan2_32_class")
  of_gen = filled(gen, "gen", golden["z"], y)(rule(manifest["state_dict"], manifest["seed"]))
  of_disc = filled(disc, "disc", golden["x"], y)(
    rule(manifest["discriminator_state_dict"], manifest["discriminator_seed"])
  )
  return gen, disc, of_gen, of_disc, golden, y


@pytest.mark.parametrize("case", NETS)
def test_nets_answer_as_the_reference(case):
  gen, disc, of_gen, of_disc, golden, y = published(case)
  _, _, name, (psi, cutoff) = NETS[case]
  z = golden["z"]

  def answers(of_gen, of_disc):
    ws = gen.apply(of_gen, z, y, method="map")
    return (
      ws,
      gen.apply(of_gen, z, y, psi, cutoff, method="map"),
      gen.apply(of_gen, ws, method="synthesize"),
      disc.apply(of_disc, golden["x"], y)[:, None],
    )

  ws, short, x, logits = jit(answers)(of_gen, of_disc)
  assert ws.shape[1] == gen.num_ws
  near(ws, golden["ws"])
  near(short, golden[name])
  near(x.transpose(0, 3, 1, 2), golden["generated"])
  near(logits, golden["logits"], 2e-5)
  features = jax.eval_shape(functools.partial(disc.apply, method="embed"), of_disc, golden["x"], y)
  assert features.shape == (len(z), of_disc["params"]["b4"]["out"]["kernel"].shape[0])


@pytest.mark.parametrize("case", [*NETS, "torch_stylegan2_port"])
def test_no_golden_case_is_blind(case):
  """Other latents give other images, other images other logits: by far."""
  golden = np.load(GOLDEN / f"{case}.npz")
  for name in ("ws" if "ws" in golden else "latent", "generated", "logits"):
    values = golden[name]
    spread = np.abs(values - values[:1]).max()
    assert spread > 0.05 * np.abs(values).max(), name


def test_r1_is_the_references():
  _, disc, _, of_disc, golden, y = published("stylegan2_16_none")

  def loss(params):
    D = lambda x: disc.apply(of_disc | {"params": params}, x, y)
    return penalties.r1(D, golden["x"], None, None, gamma=2.0)

  value, slope = jit(jax.value_and_grad(loss))(of_disc["params"])
  near(value, golden["r1"], 1e-4)
  near(slope["b4"]["conv"]["kernel"].transpose(3, 2, 0, 1), golden["r1_grad_b4_conv"], 1e-4)


def test_path_lengths_are_the_references(monkeypatch):
  gen, _, of_gen, _, golden, y = published("stylegan2_8_class_orig")
  noise = jnp.asarray(golden["pl_noise"].transpose(0, 2, 3, 1))
  # Examples' numbers in the place of keys; the reference's draws by number.
  monkeypatch.setattr(jax.random, "normal", lambda k, shape: noise[k])

  def loss(params):
    variables = of_gen | {"params": params}
    ws = gen.apply(variables, golden["z"], y, method="map")
    return path.PathLength()(
      lambda ws: gen.apply(variables, ws, method="synthesize"),
      ws,
      jnp.arange(len(noise)),
      {"mean": jnp.zeros([])},
    )

  (value, stats), slope = jit(jax.value_and_grad(loss, has_aux=True))(of_gen["params"])
  near(value, golden["pl"], 1e-4)
  near(stats["mean"], golden["pl_mean"], 1e-4)
  near(
    slope["synthesis_b8"]["conv0"]["affine"]["kernel"].T, golden["pl_grad_b8_conv0_affine"], 1e-4
  )


@pytest.mark.parametrize("case", ["stylegan2_16_none", "stylegan2_8_class_orig"])
def test_the_mean_style_moves_as_the_references_does(case):
  gen, _, of_gen, _, golden, y = published(case)
  ws, moved = jit(functools.partial(gen.apply, method="map", mutable=["average"]))(
    of_gen, golden["z"], y
  )
  near(ws, golden["ws"])
  near(moved["average"]["w_avg"], golden["w_avg_after"])
  fresh = jit(functools.partial(gen.init, method="map"))(jax.random.key(0), golden["z"], y)
  assert not fresh["average"]["w_avg"].any()


# Filters and convolutions.


def slow_fir(x, taps, pad, up, down):
  """Every sum by itself, of one image [H, W], in float64."""
  h, w = x.shape
  wide = np.zeros((h * up, w * up))
  wide[::up, ::up] = x
  lo, hi = pad
  wide = np.pad(wide, [(max(lo, 0), max(hi, 0))] * 2)
  wide = wide[max(-lo, 0) :, max(-lo, 0) :]
  wide = wide[: wide.shape[0] - max(-hi, 0), : wide.shape[1] - max(-hi, 0)]
  f = np.outer(taps, taps) / np.sum(taps) ** 2 * up**2
  n = len(taps)
  out = np.array(
    [
      [np.sum(wide[i : i + n, j : j + n] * f[::-1, ::-1]) for j in range(wide.shape[1] - n + 1)]
      for i in range(wide.shape[0] - n + 1)
    ]
  )
  return out[::down, ::down]


@pytest.mark.parametrize(
  "taps, pad, up, down",
  [
    ((1, 3, 3, 1), (2, 1), 2, 1),
    ((1, 3, 3, 1), (1, 1), 1, 2),
    ((1, 2, 5), (1, -1), 1, 1),
    ((1, 4, 2, 3, 1), (-1, 3), 3, 2),
  ],
)
def test_filters_against_slow_sums(taps, pad, up, down):
  x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
  got = fir.fir(x, taps, pad, up, down)
  for b in range(2):
    for c in range(3):
      np.testing.assert_allclose(
        got[b, ..., c], slow_fir(x[b, ..., c], taps, pad, up, down), atol=1e-5
      )


def test_filters_keep_what_is_constant():
  """Far from the border, where there are zeros."""
  x = jnp.ones((1, 8, 8, 1))
  for y in (fir.upsample(x), fir.downsample(x), fir.fir(x, (1, 3, 3, 1), (2, 1))):
    np.testing.assert_allclose(y[0, 2:-2, 2:-2], 1, rtol=1e-6)
  assert fir.upsample(x).shape == (1, 16, 16, 1)
  assert fir.downsample(x).shape == (1, 4, 4, 1)


@pytest.mark.parametrize(
  "k, up, down",
  [(3, False, False), (3, True, False), (3, False, True), (1, True, False), (1, False, True)],
)
def test_convolutions_see_zeros_once_around_the_image(k, up, down):
  """Resampling and convolution are one after the other on a wide margin."""
  rng = np.random.default_rng(1)
  taps = (1, 3, 3, 1)
  x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
  kernel = rng.normal(size=(k, k, 2, 3)).astype(np.float32)
  # The same of an image in a sea of zeros, cut out again.
  sea = jnp.pad(x, [(0, 0), (8, 8), (8, 8), (0, 0)])
  flat = kernel[::-1, ::-1] if up else kernel  # as the reference stores it
  plain = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  if up:
    wide = plain(fir.upsample(sea, taps), flat)
    want = wide[:, 16:28, 16:28]
  elif down:
    wide = plain(fir.fir(sea, taps, (1, 2)), flat)
    want = wide[:, 8:14:2, 8:14:2]
  else:
    want = plain(x, kernel)
  near(fir.conv(x, kernel, taps, up, down), want, 1e-5)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulation_is_another_kernel_for_each_example(up, demodulate):
  rng = np.random.default_rng(2)
  x = rng.normal(size=(3, 4, 4, 5)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 5, 6)).astype(np.float32)
  style = rng.normal(size=(3, 5)).astype(np.float32) * 3
  got = modulated_conv(x, kernel, style, up, demodulate=demodulate)
  for i in range(3):
    own = kernel * style[i][:, None]  # Karras et al. 2020, Eqs. 1 and 3
    if demodulate:
      own = own / np.sqrt(np.sum(own**2, (0, 1, 2)) + 1e-8)
    near(got[i : i + 1], fir.conv(x[i : i + 1], own, up=up), 1e-5)


def test_half_precision_does_not_overflow():
  rng = np.random.default_rng(3)
  x = rng.normal(size=(2, 4, 4, 64)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 64, 8)).astype(np.float32) * 30
  style = rng.normal(size=(2, 64)).astype(np.float32) * 1e4
  want = modulated_conv(jnp.asarray(x), kernel, style)
  for dtype, tolerance in ((jnp.float16, 3e-3), (jnp.bfloat16, 2e-2)):
    got = modulated_conv(jnp.asarray(x, dtype), kernel, style)
    assert got.dtype == dtype
    near(got.astype(jnp.float32), want, tolerance)


def test_bfloat16_is_of_the_highest_resolutions_alone():
  gen, _, of_gen, _, golden, y = published("stylegan2_32_class")
  _, disc, _, of_disc, *_ = published("stylegan2_32_class")
  for fine in (0, 2, 9):
    net = gen.clone(dtype=jnp.bfloat16, fine=fine)
    look = jit(functools.partial(net.apply, capture_intermediates=lambda m, _: m.name == "conv1"))
    x, seen = jax.eval_shape(look, of_gen, golden["z"], y)
    dtypes = {
      int(k.removeprefix("synthesis_b")): str(v["conv1"]["__call__"][0].dtype)
      for k, v in seen["intermediates"].items()
    }
    assert dtypes == {
      h: "bfloat16" if h >= max(8, 64 >> fine) else "float32" for h in (4, 8, 16, 32)
    }
    assert x.dtype == jnp.float32
  net = gen.clone(dtype=jnp.bfloat16, fine=2)
  x = jit(net.apply)(of_gen, golden["z"], y)
  near(x.transpose(0, 3, 1, 2), golden["generated"], 0.02)
  logits = jit(disc.clone(dtype=jnp.bfloat16, fine=2).apply)(of_disc, golden["x"], y)
  near(logits[:, None], golden["logits"], 0.1)


# What nets promise.


@functools.cache
def small():
  gen = Generator(size=8, channels=1, base=64, most=8, w_dim=8, layers=2)
  rng = np.random.default_rng(0)
  return gen, jax.tree.map(
    lambda s: rng.normal(size=s.shape).astype(np.float32),
    jax.eval_shape(gen.init, jax.random.key(0), jnp.zeros((1, 4))),
  )


def test_noise_is_a_function_of_the_example_alone():
  gen, variables = small()
  z, keys = jnp.ones((4, 4)), jax.random.split(jax.random.key(1), 4)
  draw = jit(lambda z, key: gen.apply(variables, z, key=key))
  x = draw(z, keys)
  assert np.abs(np.diff(x, axis=0)).max() > 0.1  # of one z
  np.testing.assert_allclose(x[::-1], draw(z, keys[::-1]), atol=1e-4)
  const = jit(lambda z: gen.apply(variables, z))(z)
  np.testing.assert_allclose(const, const[:1].repeat(4, 0), atol=1e-4)
  assert np.abs(const - x).max() > 0.1
  silent = Generator(size=8, channels=1, base=64, most=8, w_dim=8, layers=2, noise=False)
  assert "noise" not in jax.eval_shape(silent.init, jax.random.key(0), z)


def test_truncation_is_traced():
  gen, variables = small()
  variables = variables | {"average": {"w_avg": jnp.arange(8.0)}}
  z, calls = jax.random.normal(jax.random.key(2), (3, 4)), []

  @jit
  def styles(psi, cutoff):
    calls.append(1)
    return gen.apply(variables, z, None, psi, cutoff, method="map")

  whole = styles(1.0, jnp.inf)
  np.testing.assert_allclose(
    styles(0.0, jnp.inf), np.broadcast_to(np.arange(8.0), whole.shape), atol=1e-5
  )
  half = styles(0.5, 2.0)
  np.testing.assert_array_equal(half[:, 2:], whole[:, 2:])
  np.testing.assert_allclose(half[:, :2], (whole[:, :2] + np.arange(8.0)) / 2, rtol=1e-5)
  assert len(calls) == 1 and set(gen.knobs) == {"psi", "cutoff"}


def test_labels_may_be_weights():
  gen, disc, of_gen, of_disc, golden, c = published("stylegan2_8_class_orig")
  y = c.argmax(1).astype(np.int32)
  styles = jit(lambda y: gen.apply(of_gen, golden["z"], y, method="map"))
  np.testing.assert_allclose(styles(y), styles(c), rtol=1e-5)
  assert np.abs(styles(c[::-1]) - styles(c)).max() > 0.1
  with pytest.raises(ValueError, match="give it y"):
    disc.apply(of_disc, golden["x"])


def test_groups_survive_a_batch_in_parts():
  """Gradient accumulation takes every k-th example: groups stay together."""
  x = np.random.default_rng(4).normal(size=(16, 2, 2, 6)).astype(np.float32)
  whole = minibatch_stddev(x, 4, 2)
  assert whole.shape == (16, 2, 2, 2)
  group = x[1::4]  # by hand
  by_hand = np.sqrt(group.var(0) + 1e-8)[..., 3:].mean()
  np.testing.assert_allclose(whole[5, ..., 1], by_hand, rtol=1e-5)
  for i in range(2):
    np.testing.assert_allclose(minibatch_stddev(x[i::2], 4, 2), whole[i::2], rtol=1e-5)
  everybody = minibatch_stddev(x, None)
  np.testing.assert_allclose(everybody, everybody[0, 0, 0, 0])


def test_weights_begin_as_the_paper_says():
  """N(0, 1), scaled at run time; 100 times that where lr is 0.01."""
  one = Mapping(64, layers=1).init(jax.random.key(0), jnp.zeros((1, 64)))
  assert np.std(one["params"]["fc0"]["kernel"]) == pytest.approx(100, 0.05)
  one = jit(Layer(64, 4, noise=False).init)(
    jax.random.key(0), jnp.zeros((1, 4, 4, 64)), jnp.zeros((1, 8))
  )["params"]
  assert np.std(one["kernel"]) == pytest.approx(1, 0.05)
  assert (one["affine"]["bias"] == 1).all() and not one["bias"].any()
  # So that layers keep the variance of what comes in.
  x = jax.random.normal(jax.random.key(1), (512, 64))
  y = jit(Dense(256, lr=0.01).init_with_output)(jax.random.key(2), x)[0]
  assert np.std(y) == pytest.approx(1, 0.05)


def test_sizes_that_do_not_exist():
  with pytest.raises(ValueError, match="power of two"):
    jax.eval_shape(Generator(size=24).init, jax.random.key(0), jnp.zeros((1, 4)))
  with pytest.raises(ValueError, match="want squares"):
    jax.eval_shape(Discriminator().init, jax.random.key(0), jnp.zeros((1, 8, 16, 3)))
