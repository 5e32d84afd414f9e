"""DiffWave as its authors published it: philsyn/DiffWave-unconditional, -Vocoder.

| arg | condition | layers, channels, cycle | steps | parameters |
| --- | --- | --- | --- | --- |
| base | mel spectrogram | 30, 64, 10 | 50 | 2,637,305 |
| large | mel spectrogram | 30, 128, 10 | 200 | 6,914,297 |
| sc09 | nothing | 36, 256, 12 | 200 | 24,071,681 |
| sc09-small | nothing | 30, 128, 10 | 200 | 6,827,393 |

Unlike lmnt-com's of `configs/diffwave.py` its convolutions are normed, each layer
upsamples the spectrogram, which is Tacotron 2's, the error is squared, and
nothing is clipped on the way to a sample. Two codes have this net; in the older,
of philsyn, layers pass the step's embedding on, in albertfgu/diffwave-sashimi
they do not: `adds_step` says which.

  jaxgen import --source wavenet --checkpoint 1000000.pkl \
    --config configs/wavenet.py:sc09 --config.model.net.adds_step=True --workdir W
  jaxgen train --config configs/wavenet.py:sc09 --workdir W \
    --config.data.source=folder:/sc09
"""

from configs import _base

SIZES = {  # layers, channels, cycle, channels of what is added up, steps
  "base": (30, 64, 10, 64, 50),
  "large": (30, 128, 10, 128, 200),
  "sc09": (36, 256, 12, 256, 200),
  "sc09-small": (30, 128, 10, 256, 200),
  "debug": (4, 16, 4, 16, 50),
}
ARGS = tuple(SIZES)


def get_config(arg="sc09"):
  """`arg`: see above; or `debug`, a few steps of a small net."""
  layers, width, cycle, skip, steps = SIZES[arg]
  vocoder = arg in ("base", "large")
  if arg == "debug":
    c = _base.base("spoken_digits", steps=2000, batch=8, size=4096)
    c.data.rate = 8000
  elif vocoder:
    c = _base.base("folder:ljspeech", steps=1_000_000, batch=16, size=15_872)
    c.data.rate = 22_050
  else:
    c = _base.base("folder:sc09", steps=1_000_000, batch=16, size=16_000)
    c.data.rate = 16_000
  process = dict(
    name="diffusion.process.DDPM", steps=steps, beta_1=1e-4, beta_T=0.05 if steps == 50 else 0.02
  )
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.diffwave.WaveNet",
      width=width,
      skip=skip,
      layers=layers,
      cycle=cycle,
      mels=80 if vocoder else 0,
      strides=(16, 16),  # their product is a spectrogram's hop
      labels=0,
      adds_step=False,
    ),
    process=process,
    precond=dict(name="diffusion.precond.aligned", process=process),
    draw_t=dict(name="diffusion.times.grid", steps=steps),
    path=dict(name="diffusion.times.even"),
    sampler=dict(name="diffusion.samplers.waveform", bound=1e6),  # none
    steps=steps,
    classes=0,
    label_drop=0.0,
  )
  if vocoder:
    front = dict(name="audio.mel.TacotronMel")
    c.model.cond = dict(mel=dict(name="audio.mel.of_clips", front=front))
  c.optim.net = dict(name="optim.adam", lr=2e-4)
  if arg == "debug":
    c.ema.main = dict(name="ema.half_life", images=4000, ramp=0.1)
    return _base.debug(c)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=100_000)
  return c
