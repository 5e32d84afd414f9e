"""GANs' configs: parameters as many as the reference codes' networks have."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.keys import example_keys

CONFIGS = pathlib.Path(config.OURS)
KEY = jax.random.key(0)
# Of generator and discriminator, counted in the reference codes. torch-mimicry
# left layer norm out, which has 2 C a layer, and has nothing of 64 with labels.
# BigGAN at 512 has the paper's tables, which its code lacks. The papers' and
# hubs' own numbers: BigGAN 70.4M and 88.0M, BigGAN-deep 50.4M (hub128) and 34.6M.
COUNTS = {
  "dcgan:64": (3_576_704, 2_765_568),
  "dcgan:64m": (3_576_704, 2_765_568 + 4 * 4 * 512 * 500 + 100),
  "sngan:32": (4_276_739, 1_053_825),
  "sngan:32c": (4_304_387, 1_055_105),
  "sngan:64": (12_220_675 + 1998 * (1024 + 2 * (512 + 256 + 128) + 64), 10_141_441 + 1000 * 1024),
  "sngan:128": (41_996_931, 30_041_857),
  "wgan_gp:32": (1_204_483, 1_053_825),
  "wgan_gp:64": (12_220_675, 10_141_441 + 4 * (64 + 128 + 256 + 512)),
  "wgan_gp:128": (32_150_787, 29_017_857 + 4 * (64 + 128 + 256 + 512 + 1024)),
  "r3gan:cifar": (20_781_952, 21_280_512),
  "r3gan:ffhq64": (22_429_824, 22_381_440),
  "r3gan:ffhq256": (23_057_952, 23_009_568),
  "r3gan:imagenet32": (82_914_304, 86_548_992),
  "r3gan:imagenet64": (103_570_432, 107_205_120),
  "stylegan2:256": (24_767_458, 24_001_089),
  "stylegan2:1024": (30_370_060, 29_012_513),
  "stylegan2:cifar": (20_215_315, 23_089_664),
  "stylegan2:cifar_diffaugment": (20_215_315, 23_089_664),
  "diffusion_gan:cifar": (19_947_539, 23_085_056),
  "diffusion_gan:stl10": (25_456_664, 28_853_248),
  "diffusion_gan:celeba64": (25_456_664, 28_853_248),
  "diffusion_gan:lsun": (24_767_458, 26_365_504),
  "biggan:128": (70_433_988, 87_982_370),
  "biggan:256": (82_235_844, 99_225_890),
  "biggan:512": (82_468_068, 99_401_282),
  "biggan_deep:128": (50_244_484, 34_590_210),
  "biggan_deep:256": (55_736_708, 38_247_426),
  "biggan_deep:512": (56_019_780, 38_301_122),
  "biggan_deep:hub128": (50_388_609, 34_590_210),
  "biggan_deep:hub256": (55_880_833, 38_247_426),
  "biggan_deep:hub512": (56_163_905, 38_301_122),
}


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@functools.cache
def game(name):
  """-> the model of a config, shapes of a batch and of its params and stats."""
  file, _, arg = name.partition(":")
  c = config.load(f"configs/{file}.py:{arg}")
  model, size = build(c.model), c.data.size or 32
  batch = {"x": jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)}
  if c.data.classes:
    batch["y"] = jax.ShapeDtypeStruct((2,), jnp.int32)
  return model, batch, *jax.eval_shape(lambda b: model.init(core.on_device(b), KEY), batch)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
  model, batch, params, stats = game(name)
  counts = count(params["gen"]), count(params["disc"])
  assert counts == COUNTS[name]
  text = (CONFIGS / f"{name.partition(':')[0]}.py").read_text()
  assert all(f"{n:,}" in text for n in counts)
  nets = params, stats["gen"], stats["disc"]
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(nets))
  state = core.State(0, params, stats, {}, {}, None)
  keys = example_keys(KEY, 2)
  x = jax.eval_shape(lambda s, b: model.sample(s, core.on_device(b), keys), state, batch)
  assert x.shape == batch["x"].shape and x.dtype == jnp.float32
  label = {"y": batch["y"]} if "y" in batch else {}
  logits = jax.eval_shape(model.disc.apply, state.variables("disc"), x, **label)
  assert logits.shape == (2,) and logits.dtype == jnp.float32


@pytest.mark.parametrize("name", [n for n in COUNTS if n.startswith("stylegan2")])
def test_all_layers_but_one_at_the_bottom_have_noise(name):
  model, _, _, stats = game(name)
  # Layers that double, and those after: two for each height, but one at 4.
  assert len(jax.tree.leaves(stats["gen"]["noise"])) == model.gen.num_ws - 1


SMALL = ("digits", "photos", "points", "stacked", "debug")  # ours, not published


def test_every_config_is_counted():
  names = set()
  for file in {n.partition(":")[0] for n in COUNTS}:
    args = importlib.import_module(f"configs.{file}").ARGS
    names |= {f"{file}:{arg}" for arg in args if arg not in SMALL}
  assert names == set(COUNTS)
