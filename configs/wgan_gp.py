"""WGAN-GP's ResNets: Gulrajani et al. 2017, Sec. 5; without labels.

| arg | data | updates of G | G, D parameters | published |
| --- | --- | --- | --- | --- |
| 32 | CIFAR-10 | 100,000 | 1,204,483, 1,053,825 | IS 7.86 |
| 64 | LSUN bedrooms | 200,000 | 12,220,675, 10,145,281 | none |
| 128 | LSUN bedrooms | 200,000 | 32,150,787, 29,025,793 | none |

The critic moves five times for each move of G, each time on 64 images. It has
no norm at 32 and layer norm above. Nets of 64 and 128 are torch-mimicry's (with
layer norm; the authors' own for 64 differ in the critic's first and last
layers). On CIFAR-10 the authors' G moves on 128 fakes, here on 64.

  jaxgen train --config configs/wgan_gp.py:32 --workdir W
  jaxgen train --config configs/wgan_gp.py:digits --workdir W
"""

from configs import _resgan

ARGS = ("32", "64", "128", "digits", "debug")


def get_config(arg="32"):
  """`arg`: 32, 64, 128; `digits`, a minute on a laptop; `debug`."""
  if arg in ("digits", "debug"):
    return _resgan.digits(model, steps=2000, batch=64, debug=arg == "debug")
  if arg == "32":
    widths = (128,) * 4, (128,) * 4, 2
    return _resgan.published(
      "tfds:cifar10", 32, model=model, widths=widths, updates=100_000, lr=2e-4
    )
  return _resgan.published(
    "tfds:lsun/bedroom",
    int(arg),
    model=layer_normed,
    widths=_resgan.WIDTHS[int(arg)],
    updates=200_000,
    lr=1e-4,
  )


def model(gen, disc, halvings, norm="nothing", **kw):
  """Widths of both nets, and blocks of the critic that halve."""
  penalty = dict(name="adversarial.penalties.gradient_penalty", weight=10.0)
  return _resgan.game(
    (gen, disc),
    halvings,
    disc=dict(
      wrap=dict(name="nets.spectral.plain"),
      norm=dict(name=f"nets.resgan.{norm}"),
      pool=dict(name="nets.resgan.mean"),
    ),
    rule=dict(
      rule=dict(name="adversarial.losses.wasserstein"),
      penalties=[dict(name="models.gan.Penalty", fn=penalty)],
    ),
    **kw,
  )


def layer_normed(*widths, **kw):
  """The same with layer norm in the critic."""
  return model(*widths, norm="layer_norm", **kw)
