"""DiffWave: Kong et al. 2021, arXiv 2009.09761, as lmnt-com/diffwave has it.

| arg | condition | layers, channels, cycle | steps | parameters |
| --- | --- | --- | --- | --- |
| base | mel spectrogram | 30, 64, 10 | 50 | 2,619,971 |
| large | mel spectrogram | 30, 128, 10 | 200 | 6,885,315 |
| sc09 | nothing | 36, 256, 12 | 200 | 24,034,305 |
| sc09-class | digit | 36, 256, 12 | 200 | 26,413,313 |

Vocoders: clips of 62 frames, 15,872 samples, of LJSpeech at 22,050 Hz, batches
of 16, 1,000,000 steps; published opinions (MOS) 4.38 and 4.44, of recordings
4.52. `sc09`: one second at 16 kHz of spoken digits; published for the paper's own
net of 24,071,681 parameters an accuracy of 91.2% with labels, FID 1.29 without.

  jaxgen train --config configs/diffwave.py:sc09 --workdir W \
    --config.data.source=folder:/sc09
  jaxgen train --config configs/diffwave.py:digits --workdir D
  jaxgen sample --workdir D --labels 3 --num 8 --out threes

`digits` (`-free`: without labels) is for two CPU cores: half a second at 8 kHz of
the synthesised digits of `jaxgen.data.spoken`. `digits-vocoder` renders them from
spectrograms of 40 bands, and whatever else is spoken:

  jaxgen train --config configs/diffwave.py:digits-vocoder --workdir V
  jaxgen sample --workdir V --mel clip.wav --respacing fast --out again.wav
  jaxgen eval --workdir V --num 64
"""

from configs import _base

SIZES = {
  "base": (30, 64, 10, 50),
  "large": (30, 128, 10, 200),
  "sc09": (36, 256, 12, 200),
  "sc09-class": (36, 256, 12, 200),
  "digits": (20, 32, 10, 50),
  "digits-free": (20, 32, 10, 50),
  "digits-vocoder": (12, 32, 6, 50),
  "debug": (4, 16, 4, 50),
}
ARGS = tuple(SIZES)


def get_config(arg="base"):
  """`arg`: see above; or `debug`, a few steps of a small net."""
  layers, width, cycle, steps = SIZES[arg]
  vocoder, small = arg in ("base", "large", "digits-vocoder"), arg == "digits-vocoder"
  if vocoder and not small:
    c = _base.base("folder:ljspeech", steps=1_000_000, batch=16, size=15_872)
    c.data.rate = 22_050
  elif arg.startswith("sc09"):
    c = _base.base("folder:sc09", steps=1_000_000, batch=16, size=16_000)
    c.data.rate = 16_000
  else:
    c = _base.base("spoken_digits", steps=2000, batch=8, size=4096)
    if small:
      c.steps, c.batch = 1000, 4
    c.data.rate = 8000
  c.data.classes = 10 if arg in ("sc09-class", "digits", "debug") else 0
  classes = c.data.classes
  process = dict(
    name="diffusion.process.DDPM", steps=steps, beta_1=1e-4, beta_T=0.05 if steps == 50 else 0.02
  )
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=dict(
      name="nets.diffwave.DiffWave",
      width=width,
      layers=layers,
      cycle=cycle,
      steps=steps,
      mels=(40 if small else 80) if vocoder else 0,
      strides=(8, 8) if small else (16, 16),  # their product is a spectrogram's hop
      labels=classes,
    ),
    process=process,
    precond=dict(name="diffusion.precond.aligned", process=process),
    draw_t=dict(name="diffusion.times.grid", steps=steps),
    path=dict(name="diffusion.times.even"),
    sampler=dict(name="diffusion.samplers.waveform"),
    steps=steps,
    error=dict(name="diffusion.objective.absolute"),
    classes=classes,
    label_drop=0.0,
  )
  if vocoder:
    front = dict(name="audio.mel.DiffWaveMel")
    front |= dict(rate=8000, mels=40, hop=64, fft=256) if small else {}
    c.model.cond = dict(mel=dict(name="audio.mel.of_clips", front=front))
  c.optim.net = dict(name="optim.adam", lr=2e-4)
  if c.data.source == "spoken_digits":
    c.optim.net = dict(name="optim.adam", lr=1e-3, warmup=50, clip=1.0, decay="cosine")
    c.ema.main = dict(name="ema.half_life", images=4000, ramp=0.1)
    c.log.pictures = 500
    return _base.debug(c) if arg == "debug" else c
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=100_000)
  return c
