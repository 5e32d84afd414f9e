"""HiFi-GAN's nets: exact counts."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jaxgen.nets.hifigan import HiFiDiscriminator, HiFiGenerator

KEY = jax.random.key(0)
V2 = dict(width=128)
V3 = dict(
  width=256,
  rates=(8, 8, 4),
  taps=(16, 16, 8),
  kernels=(3, 5, 7),
  dilations=((1, 2), (2, 6), (3, 12)),
  paired=False,
)


def shapes(net, x):
  return jax.eval_shape(functools.partial(net.init, KEY), x)["params"]


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("spec", "want"), [({}, 13_936_130), (V2, 928_514), (V3, 1_464_322)])
def test_generators_have_as_many_parameters_as_published(spec, want):
  net, mel = HiFiGenerator(**spec), jnp.zeros((1, 4, 80))
  assert count(shapes(net, mel)) == want
  x, _ = jax.eval_shape(lambda: net.init_with_output(KEY, mel))
  assert x.shape == (1, 4 * 256, 1)


def test_discriminators_have_as_many_parameters_as_published():
  tree = shapes(HiFiDiscriminator(), jnp.zeros((1, 1000, 1)))
  counts = [
    count([v for k, v in tree.items() if k.startswith(kind)]) for kind in ("period", "scale")
  ]
  assert counts == [41_105_770, 29_618_821]


def test_taps_that_would_not_fit():
  with pytest.raises(ValueError, match="an even number more"):
    shapes(HiFiGenerator(rates=(4,), taps=(7,)), jnp.zeros((1, 4, 80)))
