"""Optimisers, one per parameter group: schedule, clipping and the update."""
from collections.abc import Callable

import optax

from jaxgen.errors import UserError

Schedule = Callable[[int], float]


def adam(
    lr: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.,
    clip: float | None = None,
    warmup: int = 0,
    decay: str = "constant",
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
    decay: What follows: "constant", "linear" or "cosine", to zero at `steps`.
    steps: Length of the run in updates; given by the train loop.
  """
  rule = optax.adamw(
      schedule(lr, warmup, decay, steps), b1=b1, b2=b2, eps=eps,
      weight_decay=weight_decay)
  return rule if clip is None else optax.chain(
      optax.clip_by_global_norm(clip), rule)


def schedule(lr: float, warmup: int, decay: str, steps: int) -> Schedule:
  """Linear warm-up to `lr`, then constant, linear or cosine to 0 at `steps`."""
  rest = max(steps - warmup, 1)
  tails = {
      "constant": lambda: optax.constant_schedule(lr),
      "linear": lambda: optax.linear_schedule(lr, 0., rest),
      "cosine": lambda: optax.cosine_decay_schedule(lr, rest),
  }
  if decay not in tails:
    raise UserError(f"decay={decay!r}: choose one of {', '.join(tails)}")
  rise = optax.linear_schedule(0., lr, warmup)
  return optax.join_schedules([rise, tails[decay]()], [warmup])
