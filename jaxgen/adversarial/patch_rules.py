"""Rules of translation: each side's loss is a mean over patches, the discriminator's halved.

As junyanz/pytorch-CycleGAN-and-pix2pix has them (its `gan_mode`). Logits are of any
shape: means are over all of them.
"""

import jax.numpy as jnp
from jax.nn import softplus

from jaxgen.adversarial.losses import Rule


def cross_entropy() -> Rule:
  """Its "vanilla", pix2pix': G maximises log D(G(x)) (Isola et al. 2017, Sec. 3.3)."""
  return Rule(
    lambda real, fake: (jnp.mean(softplus(-real)) + jnp.mean(softplus(fake))) / 2,
    lambda fake: jnp.mean(softplus(-fake)),
  )


def squares() -> Rule:
  """Its "lsgan", CycleGAN's (Zhu et al. 2017, Sec. 4).

  The generator's is not halved, unlike `losses.least_squares`.
  """
  return Rule(
    lambda real, fake: (jnp.mean((real - 1) ** 2) + jnp.mean(fake**2)) / 2,
    lambda fake: jnp.mean((fake - 1) ** 2),
  )


def critic() -> Rule:
  """Its "wgangp"; wants a penalty on the critic's slope."""
  return Rule(
    lambda real, fake: (jnp.mean(fake) - jnp.mean(real)) / 2,
    lambda fake: -jnp.mean(fake),
    level=False,
  )
