"""WaveGAN: Donahue et al. 2019, arXiv 1802.04208, as chrisdonahue/wavegan has it.

| arg | samples | condition | G, D parameters |
| --- | --- | --- | --- |
| sc09 | 16,384 | nothing | 19,065,345, 17,427,969 |
| sc09-class | 16,384 | digit | 19,589,953, 17,591,809 |
| 32768, 65536 | as many | nothing | 73,149,953, 69,875,201 |

WGAN-GP: five moves of the critic for one of the generator, each of 64 clips;
200,000 moves of G, four days of a P100. Clips are of 16 kHz, one second of
spoken digits; the longer ones are for music and effects.

  jaxgen train --config configs/wavegan.py:sc09 --workdir W \
    --config.data.source=folder:/sc09
  jaxgen train --config configs/wavegan.py:digits --workdir D
  jaxgen sample --workdir D --labels 3 --num 8 --out threes

`digits` (`-free`: without labels) is for two CPU cores: half a second at 8 kHz of
the synthesised digits of `jaxgen.data.spoken`, the rival of
`configs/diffwave.py:digits`. A step of 16 clips takes about 0.1 s of one core,
6000 of them ten minutes. So few steps want higher rates than published, and two
moves of the critic for one of the generator.
"""

from configs import _base

ARGS = ("sc09", "sc09-class", "32768", "65536", "digits", "digits-free", "debug")


def get_config(arg="sc09"):
  """`arg`: see above; or `debug`, a few steps of a small net."""
  small = arg in ("digits", "digits-free", "debug")
  conditional = arg in ("sc09-class", "digits", "debug")
  if small:
    size = 1024 if arg == "debug" else 4096
    c = _base.base("spoken_digits", steps=6000, batch=16, size=size)
    c.data.rate = 8000
  else:
    size = 16_384 if arg.startswith("sc09") else int(arg)
    c = _base.base("folder:sc09", steps=1_000_000, batch=64, size=size)
    c.data.rate = 16_000
  c.data.classes = 10 if conditional else 0
  nets(c, 16, z_dim=64, moves=2) if small else nets(c, 64, z_dim=100, moves=5)
  adam = dict(name="optim.adam", lr=1e-4, b1=0.5, b2=0.9)
  c.optim.disc, c.optim.gen = adam, dict(adam, every=c.model.gen_every)
  if not small:
    c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
    c.log.pictures = 10_000
    c.checkpoint.update(every=5000, keep_every=100_000)
    return c
  c.optim.disc.lr = c.optim.gen.lr = 4e-4
  c.ema.main = dict(name="ema.half_life", images=4000, ramp=0.1)
  c.log.pictures = 500
  if arg == "debug":
    c.model.gen.width = c.model.disc.width = 4
    return _base.debug(c)
  return c


def nets(c, width, z_dim, moves):
  """Both nets, and the rules of the game: `moves` of D for one of G."""
  classes, strides, length = c.data.classes, [], c.data.size // 16
  while length > 1:  # by fours, and the last one by what is left
    strides.append(min(length, 4))
    length //= 4
  shape = dict(width=width, strides=tuple(strides), classes=classes)
  penalty = dict(name="adversarial.penalties.gradient_penalty", weight=10.0)
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(name="nets.wavegan.Generator", post=0, **shape),
    disc=dict(name="nets.wavegan.Discriminator", shuffle=2, **shape),
    rule=dict(name="adversarial.losses.wasserstein"),
    penalties=[dict(name="models.gan.Penalty", fn=penalty)],
    gen_every=moves,
    z_dim=z_dim,
    classes=classes,
  )
