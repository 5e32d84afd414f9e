"""DiffWave: Kong et al. 2021, arXiv 2009.09761, as lmnt-com/diffwave has it.

| arg | condition | layers, channels, cycle | steps | parameters |
| --- | --- | --- | --- | --- |
| base | mel spectrogram | 30, 64, 10 | 50 | 2,619,971 |
| large | mel spectrogram | 30, 128, 10 | 200 | 6,885,315 |
| sc09 | nothing | 36, 256, 12 | 200 | 24,034,305 |
| sc09-class | digit | 36, 256, 12 | 200 | 26,413,313 |

Vocoders: clips of 62 frames, 15,872 samples, of LJSpeech at 22,050 Hz, batches
of 16, 1,000,000 steps; published opinion (MOS) of the large one 4.44, of WaveNet
4.43. `sc09`: one second at 16 kHz of spoken digits; the paper's own net has
24,071,681 parameters, see `configs/wavenet.py`.

  jaxgen train --config configs/diffwave.py:sc09 --workdir W \
    --config.data.source=folder:/sc09
  jaxgen train --config configs/diffwave.py:digits --workdir D
  jaxgen sample --workdir D --labels 3 --num 8 --out threes

`digits` (`-free`: without labels) is for two CPU cores: half a second at 8 kHz of
the synthesised digits of `jaxgen.data.spoken`, by EDM's rules. `digits-vocoder`
renders them from spectrograms of 40 bands by the published chain, which after its
ten minutes of a core is still noise: take more steps, or `configs/hifigan.py`.

  jaxgen sample --workdir V --mel clip.wav --respacing fast --out again.wav
  jaxgen eval --workdir V --num 64
"""

from configs import _base

SIZES = {  # layers, channels, cycle of dilations, steps
  "base": (30, 64, 10, 50),
  "large": (30, 128, 10, 200),
  "sc09": (36, 256, 12, 200),
  "sc09-class": (36, 256, 12, 200),
  "digits": (10, 32, 10, 18),
  "digits-free": (10, 32, 10, 18),
  "digits-vocoder": (12, 32, 6, 50),
  "debug": (4, 16, 4, 50),
}
ARGS = tuple(SIZES)


def get_config(arg="base"):
  """`arg`: see above; or `debug`, a few steps of a small net."""
  layers, width, cycle, steps = SIZES[arg]
  if arg in ("base", "large"):
    c = _base.base("folder:ljspeech", steps=1_000_000, batch=16, size=15_872)
    c.data.rate, hop, mels = 22_050, (16, 16), 80
  elif arg.startswith("sc09"):
    c = _base.base("folder:sc09", steps=1_000_000, batch=16, size=16_000)
    c.data.rate, hop, mels = 16_000, (16, 16), 0
  else:
    c = _base.base("spoken_digits", steps=2000, batch=8, size=4096)
    c.data.rate, hop, mels = 8000, (8, 8), 0
    if arg == "digits-vocoder":
      c.steps, c.batch, mels = 1000, 4, 40
  c.data.classes = classes = 10 if arg in ("sc09-class", "digits", "debug") else 0
  net = dict(width=width, layers=layers, cycle=cycle, labels=classes)
  shared = dict(name="models.diffusion.Diffusion", steps=steps, classes=classes, label_drop=0.0)
  if arg in ("digits", "digits-free"):
    c.model = shared | in_edm(net)
  else:
    c.model = shared | in_chain(net | dict(steps=steps, mels=mels, strides=hop), steps)
  if mels:
    front = dict(name="audio.mel.DiffWaveMel")
    front |= dict(rate=8000, mels=40, hop=64, fft=256) if arg == "digits-vocoder" else {}
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


def in_chain(net, steps):
  """The published chain, loss and sampler, of lmnt's net."""
  last = 0.05 if steps == 50 else 0.02
  process = dict(name="diffusion.process.DDPM", steps=steps, beta_1=1e-4, beta_T=last)
  return dict(
    net=dict(name="nets.diffwave.DiffWave", **net),
    process=process,
    precond=dict(name="diffusion.precond.aligned", process=process),
    draw_t=dict(name="diffusion.times.grid", steps=steps),
    path=dict(name="diffusion.times.even"),
    sampler=dict(name="diffusion.samplers.waveform"),
    error=dict(name="diffusion.objective.absolute"),
  )


def in_edm(net):
  """Karras et al. 2022 around the authors' net, for trainings of minutes.

  The digits' standard deviation is 0.064. Nearly all of DiffWave's chain is so
  noisy for them that a short training learns to tell noise from noise.
  """
  return dict(
    net=dict(name="nets.diffwave.WaveNet", skip=net["width"], embed=(128, 128, 128), **net),
    sampler=dict(name="diffusion.samplers.heun"),
    **_base.edm(sigma_data=0.064, mean=-3.3, std=1.4, lo=0.0005, hi=5.0),
  )
