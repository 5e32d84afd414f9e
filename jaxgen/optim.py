"""Optimisers, one per parameter group: schedule, clipping and the update."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import optax

from jaxgen.errors import UserError

Schedule = Callable[[int], float]


def adam(
  lr: float,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip: float | None = None,
  warmup: int | float = 0,
  decay: str = "constant",
  end: float = 0.05,
  every: int = 1,
  lazy: int = 0,
  after: int = 70_000,
  unit_rms: bool = False,
  epochs: tuple[int, int] = (100, 100),
  *,
  steps: int,
) -> optax.GradientTransformation:
  """Adam, or AdamW where `weight_decay` > 0, with the usual trimmings.

  Args:
    lr: Peak learning rate.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the root of the second moment.
    weight_decay: Decoupled decay, multiplied by the learning rate.
    clip: Gradients are scaled to at most this global norm.
    warmup: Updates over which the rate rises linearly from zero.
    decay: What follows: "constant"; "linear" or "cosine", to zero at the end;
      "exponential" or "cosine_to", to the share `end` of the peak; "by_epoch",
      see `by_epoch`; or "inverse_sqrt", by one over the root of the updates,
      warm-up and all, from `after` of them on.
    end: See decay.
    every: Batches per update: the player's `every`.
    lazy: Batches per move of a lazy penalty on the same group; 0: none. Its
      moves are updates more, so that lr * c, b1^c and b2^c with
      c = lazy / (lazy + every) go as far in a batch as without (Karras et al.
      2020, Sec. 3.1).
    after: See decay.
    unit_rms: Forced weight normalisation, see `of_unit_rms`.
    epochs: See `by_epoch`.
    steps: Length of the run in batches; given by the train loop.
  """
  c = lazy / (lazy + every) if lazy else 1.0
  rate = schedule(lr * c, warmup, decay, updates(steps, every, lazy), end, after, epochs)
  rule = optax.adamw(rate, b1=b1**c, b2=b2**c, eps=eps, weight_decay=weight_decay)
  rules = [] if clip is None else [optax.clip_by_global_norm(clip)]
  rules += [rule, *([of_unit_rms()] if unit_rms else [])]
  return rules[0] if len(rules) == 1 else optax.chain(*rules)


def rmsprop(
  lr: float,
  b2: float = 0.99,
  eps: float = 1e-8,
  clip_weights: float | None = None,
  warmup: int = 0,
  decay: str = "constant",
  every: int = 1,
  *,
  steps: int,
) -> optax.GradientTransformation:
  """RMSProp, by which WGAN was trained (Arjovsky et al. 2017, Alg. 1).

  Args:
    lr: Peak learning rate.
    b2: Decay of the second moment.
    eps: Added to its root.
    clip_weights: Weights stay in [-clip_weights, clip_weights].
    warmup: As for `adam`, like the rest.
    decay: See there.
    every: See there.
    steps: See there.
  """
  rate = schedule(lr, warmup, decay, updates(steps, every))
  rule = optax.rmsprop(rate, decay=b2, eps=eps, eps_in_sqrt=False)
  return rule if clip_weights is None else optax.chain(rule, in_box(clip_weights))


def radam(
  lr: float,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  clip: float | None = None,
  warmup: int = 0,
  decay: str = "constant",
  every: int = 1,
  *,
  steps: int,
) -> optax.GradientTransformation:
  """Rectified Adam (Liu et al. 2020), by which consistency models were trained.

  Its steps are small as long as the second moment is not known, so that it
  needs no warm-up. Arguments as those of `adam`.
  """
  rate = schedule(lr, warmup, decay, updates(steps, every))
  rule = optax.radam(rate, b1=b1, b2=b2, eps=eps)
  return rule if clip is None else optax.chain(optax.clip_by_global_norm(clip), rule)


def in_box(most: float) -> optax.GradientTransformation:
  """Cuts updates, so that no weight leaves [-most, most]."""
  edge = most * (1 - 1e-6)  # a hair inside: w + (edge - w) is rounded
  return optax.stateless_with_tree_map(lambda update, w: (w + update).clip(-edge, edge) - w)


def of_unit_rms(eps: float = 1e-4) -> optax.GradientTransformation:
  """Keeps all outputs' weights at unit rms (Karras et al. 2024, Sec. 2.3, Alg. 1).

  Of arrays of two axes and more, whose last is that of the outputs: what an
  update would leave is divided by its rms + eps. So no weight grows, the rate
  alone says how far a step turns it, and no gradient is lost along what
  normalisation in the net takes away.
  """

  def project(update, w):
    if w.ndim < 2:
      return update
    new = w + update
    rms = jnp.sqrt(jnp.mean(new**2, range(w.ndim - 1), keepdims=True))
    return new / (rms + eps) - w

  return optax.stateless_with_tree_map(project)


def updates(steps: int, every: int = 1, lazy: int = 0) -> int:
  """Updates of a group in so many batches, its lazy penalty's among them."""
  return -(-steps // every) + (-(-steps // lazy) if lazy else 0)


def schedule(
  lr: float,
  warmup: float,
  decay: str,
  steps: int,
  end: float = 0.05,
  after: int = 70_000,
  epochs: tuple[int, int] = (100, 100),
) -> Schedule:
  """Linear warm-up to `lr`, then to 0, or `end` of it, at `steps`; see `adam`."""
  rest = max(steps - warmup, 1)
  tails = {
    "constant": lambda: optax.constant_schedule(lr),
    "linear": lambda: optax.linear_schedule(lr, 0.0, rest),
    "cosine": lambda: optax.cosine_decay_schedule(lr, rest),
    "exponential": lambda: optax.exponential_decay(lr, rest, end),
    "cosine_to": lambda: optax.cosine_decay_schedule(lr, rest, end),
    "by_epoch": lambda: functools.partial(by_epoch, lr, rest, *epochs),
    "inverse_sqrt": lambda: None,  # another rise, too
  }
  if decay not in tails:
    raise UserError(f"decay={decay!r}: choose one of {', '.join(tails)}")
  if decay == "inverse_sqrt":
    return functools.partial(inverse_sqrt, lr, warmup, after)
  rise = optax.linear_schedule(0.0, lr, warmup)
  return optax.join_schedules([rise, tails[decay]()], [warmup])


def inverse_sqrt(lr: float, warmup: float, after: float, i: int) -> jnp.ndarray:
  """lr min(i / warmup, 1) / sqrt(max(i / after, 1)) (Karras et al. 2024, Eq. 67)."""
  rise = jnp.minimum(i / warmup, 1) if warmup else 1.0
  return lr * rise / jnp.sqrt(jnp.maximum(i / after, 1))


def by_epoch(lr: float, steps: float, flat: int, fall: int, i: int) -> jnp.ndarray:
  """lr (1 - max(0, e + 1 - flat) / (fall + 1)) in epoch e = 0, 1, .. of flat + fall.

  The rate of pix2pix and CycleGAN, by their code: constant for `flat` epochs, then
  a step down with each. All epochs together are `steps` updates, whatever an epoch
  of the data is.
  """
  epoch = jnp.floor(jnp.asarray(i, jnp.float32) * ((flat + fall) / steps) + 1e-4)
  return lr * jnp.maximum(1 - jnp.maximum(0.0, epoch + 1 - flat) / (fall + 1), 0.0)
