"""Standing statistics: batch norm made ready for what is to be sampled."""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import Array, Groups, Key, State
from jaxgen.keys import example_keys, fold
from jaxgen.models.gan_parts import keyed, latents


def settle(gan: Any, state: State, key: Key, y: Array,
           truncation: Array | float = float("inf")) -> State:
  """Batch norm's statistics anew, for samples at this truncation.

  Averages over n batches (standing statistics: Brock et al. 2019, App. B).

  Args:
    gan: models.gan.GAN.
    state: Whose weights sample: averaged ones, as a rule.
    key: [n], one for each batch.
    y: Labels [n, B], or [B] for all; without classes its shape alone counts.
    truncation: As in `sample`.
  """
  old = state.stats["gen"].get("batch_stats")
  if not old:
    return state

  def run(stats, key, y):
    key = example_keys(key, len(y))
    _, moved = gan.gen.apply(
        state.variables("gen") | {"batch_stats": stats},
        latents(key, gan.z_dim, truncation), mutable=["batch_stats"],
        **gan.given({"y": y}), **keyed(gan.gen, fold(key, 1)))
    return moved["batch_stats"]

  y = jnp.broadcast_to(y, (len(key), jnp.shape(y)[-1]))
  gen = state.stats["gen"] | {"batch_stats": standing(run, old, key, y)}
  return state.replace(stats=state.stats | {"gen": gen})


def standing(run: Callable[[Groups, Key, Array], Groups], old: Groups,
             key: Key, y: Array) -> Groups:
  """Plain averages over n batches, in one scan.

  Args:
    run: (running statistics, key [], labels [B]) -> those after one batch.
    old: Whose leaves `mean` and `var` are made anew; others stay.
    key: [n].
    y: [n, B].
  """
  moving = lambda path: path[-1].key in ("mean", "var")
  def set_to(value: float) -> Groups:
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, value) if moving(path) else x, old)

  # Running ones become m running + (1 - m) batch: two runs give m away.
  low, high = (run(set_to(value), key[0], y[0]) for value in (0., 1.))
  def body(total, now):
    return jax.tree.map(jnp.add, total, run(set_to(0.), *now)), None
  total, _ = jax.lax.scan(body, set_to(0.), (key, y))
  return jax.tree_util.tree_map_with_path(
      lambda path, old, total, low, high:
      total / (len(key) * (1 - (high - low))) if moving(path) else old,
      old, total, low, high)
