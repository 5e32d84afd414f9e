"""pix2pix and Palette as games: a reference's losses, and what knobs do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import filled, jit
from golden import draws, near, scaled
from translators import disc_weights, gen_weights, nchw, nhwc, opened, shapes, state_of

from jaxgen import core, optim
from jaxgen.adversarial import patch_rules, penalties
from jaxgen.diffusion import degrade, noise_ratio, samplers
from jaxgen.diffusion.denoiser import Outside
from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.keys import example_keys, fold
from jaxgen.models import palette
from jaxgen.models.pix2pix import Pix2Pix
from jaxgen.models.translation import from_data, wants_of
from jaxgen.nets.patchgan import PatchGAN, PixelGAN
from jaxgen.nets.pix2pix_unet import TranslatorUNet
from jaxgen.nets.source_unet import SourceUNet

KEY = jax.random.key(0)
TOLERANCE = 2e-4


def test_the_references_step():
  d, m = opened("pix2pix")
  model = Pix2Pix(
    TranslatorUNet(4, 5, 3, "batch", 0.0), PatchGAN(4), patch_rules.cross_entropy, l1_weight=100.0
  )
  batch = {"x": nhwc(d["B"]), "source": nhwc(d["A"])}
  params, stats = shapes(model, batch)
  gen = gen_weights(
    {"params": params["gen"], **stats["gen"]}, m["seed"], m["state_dict"], averages=True
  )
  disc = disc_weights(params["disc"], m["discriminator_seed"], m["discriminator_state_dict"])
  averages, gen = {"batch_stats": gen["batch_stats"]}, gen["params"]
  state = state_of({"gen": gen, "disc": disc}, {"gen": averages, "disc": {}})
  keys = example_keys(KEY, 2)
  loss, _ = jit(model.disc_loss)(state, batch, keys)
  near(loss, d["loss_d"], TOLERANCE)
  near(loss, (d["loss_d_fake"] + d["loss_d_real"]) / 2, TOLERANCE)

  def objective(params):
    return model.gen_loss(state.replace(params=state.params | {"gen": params}), batch, keys)

  (loss, (stats, info)), slope = jit(jax.value_and_grad(objective, has_aux=True))(gen)
  theirs = np.transpose(d["grad_first_weight"], (2, 3, 1, 0))
  near(slope["down_0"]["kernel"], theirs, TOLERANCE)
  near(info["fooled"], d["loss_g_gan"], TOLERANCE)
  near(100 * info["l1"], d["loss_g_l1"], TOLERANCE)
  near(loss, d["loss_g_gan"] + d["loss_g_l1"], TOLERANCE)
  near(stats["gen"]["batch_stats"]["down_1_norm"]["var"], d["running_var"], TOLERANCE)
  x = jit(model.sample)(state, batch, keys, image_stats=jnp.float32(0))
  near(nchw(x), d["output_eval"], TOLERANCE)


def test_the_references_learning_rates():
  """For every epoch, whatever its length; at its first update and its last."""
  d, _ = opened("pix2pix")
  for length in (1, 7, 400):
    rate = jax.vmap(optim.schedule(2e-4, 0, "by_epoch", 200 * length))
    for place in (0, length - 1):
      ours = rate(np.arange(200) * length + place)
      np.testing.assert_allclose(ours, d["lr_by_epoch"][:200], rtol=2e-6)
    assert rate(np.array([200 * length])) == d["lr_by_epoch"][200] == 0


def small(**changes):
  model = Pix2Pix(TranslatorUNet(2, 2, 1, dropout=0.0), PixelGAN(2), patch_rules.squares, **changes)
  rng = np.random.default_rng(0)
  batch = {k: jnp.float32(rng.uniform(-1, 1, (4, 8, 8, 1))) for k in ("x", "source")}
  params, stats = shapes(model, batch)
  return model, filled(core.State(0, params, stats, {}, {}, None)), batch


def test_the_discriminator_is_shown_pairs():
  model, state, batch = small()
  keys = example_keys(KEY, 4)
  loss = jit(lambda batch: model.disc_loss(state, batch, keys)[0])
  fake, _ = jit(model.generate)(state, batch["source"], keys)
  D = lambda x: model.disc.apply({"params": state.params["disc"]}, x)
  pair = lambda x: jnp.concatenate([batch["source"], x], -1)
  want = (jnp.mean((D(pair(batch["x"])) - 1) ** 2) + jnp.mean(D(pair(fake)) ** 2)) / 2
  np.testing.assert_allclose(loss(batch), want, rtol=1e-5)
  alone, state, batch = small(sees_source=False)
  assert state.params["disc"]["conv_0"]["kernel"].shape[2] == 1
  fn = functools.partial(penalties.gradient_penalty, weight=2.0)
  steep, _, _ = small(penalty=fn, sees_source=False)
  plain, _ = jit(alone.disc_loss)(state, batch, keys)
  total, (_, info) = jit(steep.disc_loss)(state, batch, keys)
  np.testing.assert_allclose(total, plain + info["penalty"], rtol=1e-5)


def test_an_image_is_translated_by_itself():
  """Whatever is beside it in the batch, by default; and with running averages."""
  model, state, batch = small()
  keys = example_keys(KEY, 4)
  sample = jit(model.sample)
  whole = sample(state, batch, keys)
  order = np.array([3, 3, 0, 1])
  some = sample(state, {k: v[order] for k, v in batch.items()}, keys[order])
  np.testing.assert_allclose(some, whole[order], atol=1e-6)
  by_average = sample(state, batch, keys, image_stats=jnp.float32(0))
  assert np.abs(by_average - whole).max() > 1e-3
  assert model.knobs == {"image_stats": 1.0}
  assert small(image_stats=0.0)[0].knobs == {"image_stats": 0.0}


def test_sources_come_of_the_data_or_of_x():
  assert wants_of({"source": from_data}) == ("source",)
  assert wants_of({"source": functools.partial(from_data)}) == ("source",)
  assert wants_of({"source": degrade.grey, "keep": palette.centre_kept}) == ()
  model, state, batch = small()
  halved = Pix2Pix(model.gen, model.disc, model.rule, {"source": lambda x: x / 2})
  keys = example_keys(KEY, 4)
  sample = jit(halved.sample)
  own = sample(state, {"x": batch["x"]}, keys)
  brought = sample(state, {"x": 0 * batch["x"], "source": batch["x"] / 2}, keys)
  np.testing.assert_array_equal(own, brought)


@pytest.fixture(scope="module")
def reference():
  """Palette's golden net in a model of 8 steps: model, state, arrays."""
  d, m = opened("palette")
  net = SourceUNet(32, (1, 2), 1, (8,), head=16, updown=True, dropout=0.2)
  model = palette.Palette(
    net=net,
    process=noise_ratio.Ratio(),
    precond=noise_ratio.level,
    draw_t=noise_ratio.between,
    path=functools.partial(noise_ratio.chain, steps=8),
    sampler=samplers.ancestral,
    steps=8,
    bound=1.0,
    cond={"source": palette.whole, "keep": palette.centre_kept},
    hole=degrade.boxes,
  )
  values = {}
  for name, z, _ in draws(m["seed"], m["state_dict"]):
    weight = scaled(z) if z.ndim > 1 else 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
    values[f"denoise_fn.{name}"] = weight
  tree = shapes(model, {"x": jnp.zeros((1, 16, 16, 3))})[0]["net"]
  state = state_of({"net": names.take(values, tree, "palette")}, {"net": {}})
  return model, state, d


def test_palettes_losses_with_a_hole_and_without(reference):
  model, state, d = reference
  near(noise_ratio.gammas(2000, 1e-6, 1e-2), d["gammas_train"], 1e-6)
  i, u = jnp.asarray(d["t"]), jnp.asarray(d["u"][:, 0])
  ratio = noise_ratio.ratio_between(i, u, 2000, 1e-6, 1e-2)
  t = model.process(ratio.reshape(-1, 1, 1, 1))
  mask, noise, x = nhwc(d["mask"]), nhwc(d["loss_noise"]), nhwc(d["y_0"])
  play = jit(lambda *args: model.hole_loss(*args, None))
  for name, hole, source in (
    ("loss_masked", mask, d["y_cond"]),
    ("loss_whole", jnp.ones_like(mask), d["y_cond_whole"]),
  ):
    batch = {"x": x, "source": nhwc(source)}
    loss, _ = play(state, batch, 1 - hole, t, noise)
    near(loss, d[name], TOLERANCE)


def test_levels_of_training_lie_between_those_of_the_chain():
  keys = example_keys(KEY, 4000)
  draw = functools.partial(noise_ratio.between, ndim=4, steps=4, beta_1=0.1, beta_T=0.4)
  t = noise_ratio.Ratio()(jit(draw)(keys))
  gamma, levels = np.ravel(t.alpha) ** 2, noise_ratio.gammas(4, 0.1, 0.4)
  counts, _ = np.histogram(gamma, levels[::-1])
  assert counts.sum() == 4000 and (abs(counts / 4000 - 1 / 3) < 0.03).all()
  inside = gamma[gamma > levels[1]]
  np.testing.assert_allclose(inside.mean(), levels[:2].mean(), rtol=0.01)  # evenly


def test_palettes_restoration(reference, monkeypatch):
  """What is known comes back after each step; the reference's draws in their order."""
  model, state, d = reference
  y, keep, draw = nhwc(d["y_0"]), 1 - nhwc(d["mask"]), [nhwc(x) for x in d["draws"]]
  filled_hole = nhwc(d["y_cond"]) - keep * y  # of noise
  monkeypatch.setattr(palette, "normal", lambda key, shape: filled_hole)
  left = iter([*draw[1:], jnp.zeros_like(y)])
  monkeypatch.setattr(samplers, "normal", lambda key, shape: next(left))
  guided = type(model).within

  def outside(self, D, *args):
    compiled = jax.jit(guided(self, D, *args))
    return Outside(lambda x_t, t: compiled(x_t, t))

  monkeypatch.setattr(type(model), "within", outside)  # step by step
  path, _ = model.path_points(model.knobs)
  near(path.alpha[:8] ** 2, d["gammas_test"][::-1], 1e-5)
  batch = {"x": 0 * y, "source": y, "keep": 2 * keep - 1, "noise": draw[0] / path.sigma[0]}
  x = model.sample(state, batch, example_keys(KEY, 2))
  near(nchw(x), d["restored"], TOLERANCE)


def test_holes_are_all_that_is_filled(reference):
  model, state, d = reference
  batch, keys = {"x": nhwc(d["y_0"])}, example_keys(KEY, 2)
  x = jit(model.sample)(state, batch, keys)
  keep = np.asarray(palette.centre_kept(batch["x"])) > 0
  keep = np.broadcast_to(keep, x.shape)
  assert keep.mean() == 0.75
  np.testing.assert_array_equal(np.asarray(x)[keep], np.asarray(batch["x"])[keep])
  assert np.abs(np.asarray(x - batch["x"])[~keep]).min() > 0
  np.testing.assert_array_equal(palette.border_kept(batch["x"]) > 0, ~keep[..., :1])


def test_a_source_with_a_hole_is_no_mean_of_x(reference):
  model, _, _ = reference
  with pytest.raises(UserError, match="a source with a hole is no mean"):
    dataclasses.replace(model, around=palette.source_as_mean)
  grey = jnp.arange(4.0).reshape(1, 2, 2, 1)
  mean = palette.source_as_mean({"source": grey}, (1, 2, 2, 3))
  np.testing.assert_array_equal(mean, jnp.repeat(grey, 3, -1))


def test_sources_of_training_are_drawn_by_the_examples_keys(reference):
  """By the step and the place in the batch: a training that goes on draws the same."""
  model, state, d = reference
  drawn = dataclasses.replace(model, hole=None, draw_source=degrade.jpegs)
  loss, jpegs = jit(drawn.loss), jit(degrade.jpegs)
  x, losses = nhwc(d["y_0"]), []
  for step in (0, 1, 0):
    keys = example_keys(jax.random.fold_in(KEY, step), 2)
    losses.append(float(loss(state, {"x": x}, keys)[0]))
    source = jpegs(fold(keys, 7), x)
    near(losses[-1], loss(state, {"x": x, "source": source}, keys)[0], 1e-6)
  assert losses[0] == losses[2] != losses[1]
  with pytest.raises(UserError, match="both make the source"):
    dataclasses.replace(model, draw_source=degrade.jpegs)
