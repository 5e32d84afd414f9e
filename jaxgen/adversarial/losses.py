"""Rules of the game: what discriminator and generator make of logits [B].

Each rule is a pair of functions, (d_loss(real, fake), g_loss(fake)) -> [].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

Array = jax.Array


class Rule(NamedTuple):
  """What each side minimises, from logits [B].

  Attributes:
    d_loss: (real, fake) -> [].
    g_loss: (fake) -> []; or (real, fake) -> [] where the rule is `relative`.
    relative: The generator's loss takes the real data's logits, too.
    level: Logits of 0 mean neither; else only their differences have a meaning.
  """

  d_loss: Callable[[Array, Array], Array]
  g_loss: Callable[..., Array]
  relative: bool = False
  level: bool = True


def minimax() -> Rule:
  """Goodfellow et al. 2014, Eq. 1: the generator minimises log(1 - D(G(z))).

  It has no slope where the discriminator is sure: `nonsaturating` has.
  """
  return Rule(nonsaturating().d_loss, lambda fake: -jnp.mean(softplus(fake)))


def nonsaturating() -> Rule:
  """Goodfellow et al. 2014, Sec. 3: the generator maximises log D(G(z))."""
  return Rule(
    lambda real, fake: jnp.mean(softplus(-real) + softplus(fake)),
    lambda fake: jnp.mean(softplus(-fake)),
  )


def least_squares() -> Rule:
  """Mao et al. 2017, Eq. 9: real is to be 1 and fake 0; or 1, by who fakes."""
  return Rule(
    lambda real, fake: jnp.mean((real - 1) ** 2 + fake**2) / 2,
    lambda fake: jnp.mean((fake - 1) ** 2) / 2,
  )


def hinge() -> Rule:
  """Miyato et al. 2018, Eqs. 16-17."""
  return Rule(
    lambda real, fake: jnp.mean(relu(1 - real) + relu(1 + fake)), lambda fake: -jnp.mean(fake)
  )


def wasserstein() -> Rule:
  """Arjovsky et al. 2017, Eq. 2; wants a penalty on the critic's slope.

  Or weights in a box, see `optim.rmsprop`.
  """
  return Rule(lambda real, fake: jnp.mean(fake - real), lambda fake: -jnp.mean(fake), level=False)


def relativistic() -> Rule:
  """Pairs are compared (Jolicoeur-Martineau 2019; Huang et al. 2024, Eq. 2).

  R3GAN's; wants `penalties.r1` and `penalties.r2`.
  """
  return Rule(
    lambda real, fake: jnp.mean(softplus(fake - real)),
    lambda real, fake: jnp.mean(softplus(real - fake)),
    relative=True,
    level=False,
  )
