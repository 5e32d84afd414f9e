"""Does a discriminator know its data by heart? Has a generator lost diversity?"""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Metrics = dict[str, Array]


def mean_distance(x: Array) -> Array:
  """Mean distance of neighbours in a batch, [B, D] -> []: one pair each."""
  square = jnp.sum((x - jnp.roll(x, 1, 0)) ** 2, -1)
  return jnp.mean(jnp.sqrt(square))


def singular_values(stats: dict[str, Any]) -> Metrics:
  """Largest singular values that spectral norms carry: their max and min."""
  values = [
    jnp.max(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(stats)
    if str(path[-1].key).rpartition("/")[2] == "sigma"
  ]
  if not values:
    return {}
  values = jnp.stack(values)
  return {"sigma_max": jnp.max(values), "sigma_min": jnp.min(values)}


def overfitting(train: Array, heldout: Array, fake: Array) -> Metrics:
  """From logits [B] of training data, of real data held back, and of fakes.

  `rank` is the share of pairs whose training example is ranked higher: 1/2
  where D cannot tell, 1 where it knows by heart. `overfit` is where held-back
  data lie between training data (0) and fakes (1): r_v of Karras et al.
  (2020b), Eq. 1; noise where D tells nothing.
  """
  gap = jnp.mean(train) - jnp.mean(fake)
  gap = jnp.where(jnp.abs(gap) < 1e-6, 1e-6, gap)
  return {
    "real": jnp.mean(train),
    "held": jnp.mean(heldout),
    "fake": jnp.mean(fake),
    "sign_real": jnp.mean(jnp.sign(train)),
    "sign_held": jnp.mean(jnp.sign(heldout)),
    "rank": jnp.mean(jnp.where(train[:, None] == heldout, 0.5, train[:, None] > heldout)),
    "overfit": (jnp.mean(train) - jnp.mean(heldout)) / gap,
  }


def class_diversity(real: Array, fake: Array, y: Array, classes: int) -> Metrics:
  """Spread of fakes over that of real ones, within classes.

  Features [B, D] and labels [B]: roots of mean squared distances from the
  class' mean. Of classes with two examples or more: the least, and the mean;
  1 where there is none.
  """
  member = jax.nn.one_hot(y, classes)  # [B, K]
  count = jnp.sum(member, 0)

  def deviation(x):
    mean = member.T @ x / jnp.maximum(count, 1)[:, None]
    square = jnp.sum((x - mean[y]) ** 2, -1)
    return jnp.sqrt(square @ member / jnp.maximum(count, 1))

  ratio = deviation(fake) / (deviation(real) + 1e-8)
  some = count > 1
  least = jnp.min(jnp.where(some, ratio, jnp.inf))
  mean = jnp.sum(jnp.where(some, ratio, 0)) / jnp.maximum(jnp.sum(some), 1)
  none = ~jnp.any(some)
  return {
    "class_diversity_min": jnp.where(none, 1.0, least),
    "class_diversity": jnp.where(none, 1.0, mean),
  }
