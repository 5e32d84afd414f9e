"""What the configs of SNGAN and WGAN-GP share: ResNets and how they are trained."""

from configs import _base

WIDE = (1024, 512, 256, 128, 64)
# Widths of G and D by size, and how many blocks of D halve; 32 differs.
WIDTHS = {64: (WIDE, WIDE[::-1], 5), 128: ((1024, *WIDE), (*WIDE[::-1], 1024), 5)}


def published(source, size, *, model, widths, updates, lr, classes=0):
  """Images of `size`, D moving five times for each of G's `updates`."""
  small = size == 32
  c = _base.base(source, batch=64, steps=5 * updates, size=0 if small else size, classes=classes)
  c.model = model(*widths, z_dim=128, gen_every=5, classes=classes)
  optimisers(c, lr, 5, "linear" if small else "constant")
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def digits(model, *, steps, batch, debug):
  """The same rules on real digits of 8x8, with labels."""
  c = _base.base("digits", steps=steps, batch=batch, classes=10)
  widths = ((8, 8), (8, 8)) if debug else ((48,) * 3, (32,) * 3)
  every = 1 if debug else 2
  gen = dict(channels=1, bottom=4 if debug else 2)
  c.model = model(*widths, 1, z_dim=32, gen_every=every, classes=10, **gen)
  optimisers(c, 1e-3, every, "linear")
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if debug else c


def game(widths, halvings, *, disc, rule, z_dim, gen_every, classes, **gen):
  """A pair of networks; `disc`, `gen`: attributes of one; `rule`: of the game."""
  return dict(
    name="models.gan.GAN",
    gen=dict(name="nets.resgan.Generator", widths=widths[0], classes=classes, **gen),
    disc=dict(
      name="nets.resgan.Discriminator", widths=widths[1], halvings=halvings, classes=classes, **disc
    ),
    gen_every=gen_every,
    z_dim=z_dim,
    classes=classes,
    **rule,
  )


def optimisers(c, lr, every, decay):
  """Adam without momentum for both; G moves on every `every`-th batch."""
  adam = dict(name="optim.adam", lr=lr, b1=0.0, b2=0.9, decay=decay)
  c.optim.gen, c.optim.disc = dict(adam, every=every), adam
