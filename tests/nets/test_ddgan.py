"""Denoising diffusion GANs' nets, tables and steps: the published code's numbers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from games import jit
from golden import GOLDEN, draws, near, scaled

from jaxgen import config
from jaxgen.adversarial import losses, penalties
from jaxgen.config import build
from jaxgen.diffusion.denoising_chain import DenoisingChain
from jaxgen.interop import ddgan_names, names
from jaxgen.nets.ddgan_disc import PairDiscriminator
from jaxgen.nets.ncsnpp import NCSNpp

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY, CHAIN = jax.random.key(0), DenoisingChain(4)
GEN = NCSNpp(width=16, mults=(1, 2, 2), blocks=1, attend=(8,), z_width=16, z_layers=4)
SMALL = PairDiscriminator(
  width=4, mults=(2, 4, 8, 8), halve_first=False, zero_last=True, t_width=16
)
LARGE = PairDiscriminator(width=2, t_width=8)


@functools.cache
def golden():
  file = np.load(GOLDEN / "ddgan.npz")
  return file, json.loads(str(file["manifest"]))


def image(name):
  """As we have images: channels last."""
  return jnp.asarray(np.moveaxis(golden()[0][name], -3, -1))


def weights(of, scale=1.0):
  """By the rule of golden/README.md; those of discriminators are scaled."""
  manifest, tensors = golden()[1], {}
  for name, z, _ in draws(manifest[f"{of}seed"], manifest[f"{of}state_dict"]):
    if z.ndim >= 2:
      tensors[name] = scaled(z) * np.float32(scale)
    else:
      tensors[name] = 1 + 0.1 * z if name.endswith(".weight") else np.float32(0.1) * z
  return tensors


def filled(net, entries, tensors, *args):
  tree = jax.eval_shape(net.init, KEY, *args)["params"]
  return {"params": names.fill(entries(tree), tensors)}


@functools.cache
def generator():
  file, _ = golden()
  args = image("x_0"), file["t"], file["z"]
  params = filled(GEN, ddgan_names.gen_entries, weights(""), *args)
  return functools.partial(GEN.apply, params)


@functools.cache
def compiled():
  return jit(generator())


@functools.cache
def small():
  """(x_t, x_{t+1}) -> logits."""
  t = golden()[0]["t"]
  params = filled(
    SMALL, ddgan_names.disc_entries, weights("discriminator_", 1.6), image("x_0"), t, image("x_0")
  )
  return lambda x_t, x_next: SMALL.apply(params, x_t, t, x_next)


def test_tables_are_the_published_ones():
  """To the last bit but one of float32, whose rounding adds up in theirs."""
  (file, _), of = golden(), CHAIN.tables
  np.testing.assert_allclose(CHAIN.times, file["time_schedule"], rtol=1e-15)
  for ours, name in (
    (of.alphas, "a_s"),
    (of.sigmas, "sigmas"),
    (of.alphas_bar, "a_s_cum"),
    (of.sigmas_bar, "sigmas_cum"),
    (of.x_0_share, "posterior_mean_coef1"),
    (of.x_next_share, "posterior_mean_coef2"),
    (np.float64(of.std) ** 2, "posterior_variance"),
  ):
    np.testing.assert_allclose(ours, file[name], rtol=2e-7, atol=1.2e-7, err_msg=name)


def test_pairs_and_the_posterior():
  t = golden()[0]["t"]
  noise = image("pair_noise_for_t"), image("pair_noise_for_t_plus_1")
  x_t, x_next = CHAIN.pair(image("x_0"), t, *noise)
  near(x_t, image("x_t"), 1e-6)
  near(x_next, image("x_t_plus_1"), 1e-6)
  guess, noise = image("x_0_predicted"), image("posterior_noise")
  near(CHAIN.posterior(guess, x_next, t, noise), image("x_t_sampled"), 1e-6)
  np.testing.assert_array_equal(CHAIN.posterior(guess, x_next, t, noise)[0], guess[0])


def test_the_generator_of_the_reference():
  file, _ = golden()
  guess = compiled()(image("x_t_plus_1"), file["t"], file["z"])
  near(guess, image("x_0_predicted"), 2e-4)


def test_the_small_discriminator_its_losses_and_its_slope():
  (file, manifest), D = golden(), small()
  x_t, x_next = image("x_t"), image("x_t_plus_1")

  @jit
  def run(x_t, fake):
    of = lambda x: D(x, x_next)
    slope = jax.grad(lambda x: of(x).sum())(x_t)
    r1 = penalties.r1(of, x_t, x_t, None, manifest["r1_gamma"])
    return of(x_t), of(fake), slope, r1

  real, fake, slope, r1 = run(x_t, image("x_t_sampled"))
  near(real, file["logits_real"], 2e-4)
  near(fake, file["logits_fake"], 2e-4)
  near(slope[:2], image("grad_real"), 2e-4)
  rule = losses.nonsaturating()
  close = functools.partial(np.testing.assert_allclose, rtol=2e-4)
  close(rule.d_loss(real, fake), file["loss_d_real"] + file["loss_d_fake"])
  close(rule.g_loss(fake), file["loss_g"])
  close(r1, file["r1_penalty"])


def test_the_large_discriminator_of_the_reference():
  file, _ = golden()
  args = image("large_x"), file["large_t"], image("large_x_t")
  params = filled(LARGE, ddgan_names.disc_entries, weights("large_", 1.6), *args)
  near(jit(LARGE.apply)(params, *args), file["large_logits"][:, 0], 2e-4)


def test_a_whole_sample_with_the_noise_of_the_reference():
  """Counted from the noisiest step; the last adds no noise, whatever there is."""
  file, _ = golden()
  z, noise, G = file["sample_latents"], image("sample_noises"), generator()
  guess = lambda x, t, i: G(x, jnp.full(2, t), jnp.asarray(z)[i])
  run = jit(lambda n: CHAIN.run(guess, image("sample_init"), n, lambda i: noise[i]))
  near(run(4), image("sampled"), 2e-4)
  twice = lambda x: np.concatenate([x, x])
  first = compiled()(twice(image("sample_init")), np.full(4, 3), twice(z[0]))
  near(run(1), first[:2], 1e-5)


def test_the_logarithm_of_time():
  """At random frequencies, which no gradient moves; t = 0 is no NaN."""
  net = NCSNpp(width=8, mults=(1,), blocks=1, attend=(), z_width=8, embedding="fourier")
  x, t, z = jnp.ones((2, 4, 4, 1)), jnp.array([0, 3]), jnp.ones((2, 4))
  params = jax.eval_shape(net.init, KEY, x, t, z)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: jnp.float32(rng.normal(size=s.shape)), params)
  out, grads = jit(jax.value_and_grad(lambda p: net.apply({"params": p}, x, t, z).sum()))(params)
  assert np.isfinite(out)
  assert not grads["fourier_0"].any() and grads["time_1"]["kernel"].any()


@pytest.mark.parametrize(
  ("arg", "gen", "disc"),
  [
    ("cifar", 48_432_515, 12_741_633),
    ("lsun", 39_726_979, 27_737_217),
    ("celeba256", 39_726_979, 27_737_217),
  ],
)
def test_nets_are_as_large_as_published(arg, gen, disc):
  c = config.load(f"configs/ddgan.py:{arg}")
  model, size = build(c.model), c.data.size
  batch = {"x": jax.ShapeDtypeStruct((4, size, size, 3), jnp.float32)}
  params, _ = jax.eval_shape(model.init, batch, KEY)
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert (count(params["gen"]), count(params["disc"])) == (gen, disc)
