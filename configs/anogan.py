"""f-AnoGAN: WGAN-GP on what is normal, then an encoder over it (Schlegl et al. 2019).

  jaxgen train --config configs/anogan.py:digits-gan --workdir G \
    --config.data.source=digits:without=3
  jaxgen train --config configs/anogan.py:digits --workdir E \
    --config.data.source=digits:without=3 --config.model.gan_workdir=G
  jaxgen anomaly --workdir E --data digits --anomalous 3 --out scores.csv

`64`, `64-gan`: 64x64, with the ResNets of WGAN-GP (12,220,675 parameters in G and
10,145,281 in D; see wgan_gp.py), z of 128 numbers, and an encoder that halves as
often. `digits`, `photos` and theirs: minutes on a laptop. No labels anywhere. Both
halves name the same nets, so an encoder reads a GAN of its own size.
"""

from configs import _base, _resgan

ARGS = tuple(f"{kind}{gan}" for kind in ("64", "digits", "photos", "debug") for gan in ("", "-gan"))
# Widths of G and D, how many blocks of D halve, what else G takes, length of z,
# moves of D for each of G's, width of the encoder.
NETS = {
  "64": (*_resgan.WIDTHS[64], {}, 128, 5, 64),
  "digits": ((48,) * 3, (32,) * 3, 1, dict(channels=1, bottom=2), 32, 2, 32),
  "photos": ((64, 48, 32, 32), (32, 48, 64), 2, {}, 64, 2, 32),
  "debug": ((8, 8), (8, 8), 1, dict(channels=1, bottom=4), 8, 1, 8),
}
# Source, size, batch; steps of the GAN and of the encoder.
DATA = {
  "64": ("folder:images", 64, 64, 500_000, 100_000),
  "digits": ("digits", 0, 64, 2000, 800),
  "photos": ("photos", 32, 32, 1500, 800),
  "debug": ("digits", 0, 16, 20, 20),
}


def get_config(arg="digits"):
  """`arg`: 64, digits, photos or debug, an encoder; the same with -gan, its GAN."""
  kind, _, gan = arg.partition("-")
  source, size, batch, *steps = DATA[kind]
  c = _base.base(source, steps=steps[0 if gan else 1], batch=batch, size=size)
  pair = game(kind)
  if gan:
    c.model = pair
    _resgan.optimisers(c, 1e-4 if kind == "64" else 1e-3, pair["gen_every"], "linear")
  else:
    z_dim, width = pair["z_dim"], NETS[kind][-1]
    c.model = dict(
      name="models.anogan_encoder.AnoGANEncoder",
      net=dict(name="nets.convs.Encoder", width=width, out=z_dim),
      gan=pair,
      gan_workdir="",
      kappa=1.0,
    )
    c.optim.net = dict(name="optim.adam", lr=1e-3, warmup=50, decay="cosine")
    c.log.pictures = 0  # its samples are the GAN's
  c.ema.main = dict(name="ema.half_life", images=10_000, ramp=0.1)
  return _base.debug(c) if kind == "debug" else c


def game(kind):
  """WGAN-GP without labels, as a spec of plain dicts."""
  gen, disc, halvings, more, z_dim, every, _ = NETS[kind]
  penalty = dict(name="adversarial.penalties.gradient_penalty", weight=10.0)
  return _resgan.game(
    (gen, disc),
    halvings,
    disc=dict(
      wrap=dict(name="nets.spectral.plain"),
      norm=dict(name=f"nets.resgan.{'layer_norm' if kind == '64' else 'nothing'}"),
      pool=dict(name="nets.resgan.mean"),
    ),
    rule=dict(
      rule=dict(name="adversarial.losses.wasserstein"),
      penalties=[dict(name="models.gan.Penalty", fn=penalty)],
    ),
    z_dim=z_dim,
    gen_every=every,
    classes=0,
    **more,
  )
