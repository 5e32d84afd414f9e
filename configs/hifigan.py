"""HiFi-GAN: Kong et al. 2020, arXiv 2010.05646, as jik876/hifi-gan has it.

| arg | G parameters | published speed |
| --- | --- | --- |
| v1 | 13,936,130 | 167.9 times real time on a V100 |
| v2 | 928,514 | |
| v3 | 1,464,322 | 13.4 times real time on a CPU |

Discriminators of 70,724,591 parameters: five of periods, three of scales. Of
LJSpeech at 22,050 Hz, batches of 16 clips of 8,192 samples, 2,500,000 steps. Rates
fell by 0.999 after each of 3,088 epochs, here as much with every step.

  jaxgen train --config configs/hifigan.py:v1 --workdir V \
    --config.data.source=folder:/ljspeech
  jaxgen train --config configs/hifigan.py:digits --workdir H
  jaxgen sample --workdir H --mel clip.wav --out again.wav

`digits` is for two CPU cores: the synthesised digits of `jaxgen.data.spoken` at
8 kHz, from spectrograms of 40 bands; the rival of
`configs/diffwave.py:digits-vocoder`.
"""

from configs import _base

V1 = dict(
  width=512,
  rates=(8, 8, 2, 2),
  taps=(16, 16, 4, 4),
  kernels=(3, 7, 11),
  dilations=((1, 3, 5),) * 3,
  paired=True,
)
V3 = dict(
  width=256,
  rates=(8, 8, 4),
  taps=(16, 16, 8),
  kernels=(3, 5, 7),
  dilations=((1, 2), (2, 6), (3, 12)),
  paired=False,
)
SMALL = V3 | dict(width=64, rates=(8, 8), taps=(16, 16))
DEBUG = V3 | dict(width=8, rates=(8, 8), taps=(16, 16), kernels=(3,), dilations=((1, 2),))
NETS = {"v1": V1, "v2": V1 | dict(width=128), "v3": V3, "digits": SMALL, "debug": DEBUG}
ARGS = tuple(NETS)


def get_config(arg="v1"):
  """`arg`: see above; or `debug`, a few steps of a small net."""
  small = arg in ("digits", "debug")
  mel = dict(name="audio.mel.HiFiMel")
  disc = dict(name="nets.hifigan.HiFiDiscriminator")
  if small:
    c = _base.base("spoken_digits", steps=1500, batch=8, size=4096 if arg == "digits" else 512)
    c.data.rate = 8000
    mel |= dict(rate=8000, mels=40, hop=64, fft=256, highest=4000.0)
    disc |= (
      discriminators((2, 3, 5, 7, 11), 2, 8) if arg == "digits" else discriminators((2,), 1, 2)
    )
  else:
    c = _base.base("folder:ljspeech", steps=2_500_000, batch=16, size=8192)
    c.data.rate = 22_050
  c.model = dict(
    name="models.vocoder_gan.VocoderGAN",
    gen=dict(name="nets.hifigan.HiFiGenerator", **NETS[arg]),
    disc=disc,
    cond=dict(mel=dict(name="audio.mel.of_clips", front=mel)),
    ear=mel | dict(highest=0.0),
  )
  adam = dict(name="optim.adam", lr=2e-4, b1=0.8, b2=0.99, weight_decay=0.01)
  if small:
    adam |= dict(lr=1e-3, warmup=50, decay="cosine")
  else:
    adam |= dict(decay="exponential", end=0.999**3088)
  c.optim.disc, c.optim.gen = adam, adam
  c.ema.main = dict(name="ema.half_life", images=0, ramp=None)  # none at all
  c.log.pictures = 500 if small else 10_000
  if arg == "debug":
    return _base.debug(c)
  if not small:
    c.checkpoint.update(every=5000, keep_every=100_000)
  return c


def discriminators(periods, scales, width):
  """Fewer and narrower ones, without groups."""
  wide = tuple(width * 2**i for i in (0, 1, 2, 3, 3))
  return dict(
    periods=periods,
    period_widths=wide,
    scales=scales,
    scale_widths=(width, width, *wide[1:], wide[-1]),
    scale_groups=(1,) * 7,
  )
