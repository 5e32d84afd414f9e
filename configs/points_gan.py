"""WGAN-GP on a grid of 25 Gaussians (Gulrajani et al. 2017): MLPs.

jaxgen train --config configs/points_gan.py --workdir W
"""

from configs import _base

ARGS = ("debug",)


def get_config(arg=None):
  """`debug`: a few steps of a smaller net."""
  c = _base.base("points:grid25", steps=6000, batch=256)
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.mlp.Generator", width=128, depth=3),
    disc=dict(name="nets.mlp.Discriminator", width=128, depth=3),
    rule=dict(name="adversarial.losses.wasserstein"),
    penalties=[
      dict(
        name="models.gan.Penalty",
        fn=dict(name="adversarial.penalties.gradient_penalty", weight=0.1),
      )
    ],
    gen_every=2,
    z_dim=2,
  )
  adam = dict(name="optim.adam", b1=0.0, b2=0.9, decay="linear")
  c.optim.gen = dict(adam, lr=5e-4)
  c.optim.disc = dict(adam, lr=1e-3)
  c.ema.main = dict(name="ema.half_life", images=50_000, ramp=0.1)
  if arg == "debug":
    c.model.gen.width = c.model.disc.width = 32
    return _base.debug(c)
  return c
