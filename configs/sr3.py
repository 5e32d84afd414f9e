"""SR3: Saharia et al. 2021, with the networks of the common PyTorch port.

16 -> 128 pixels (`sr3.py:128`; 64 channels, 97,807,491 parameters) or 64 -> 512
(`sr3.py:512`). The port's checkpoints can be brought here; its loss is L1, and
what is trained here learns from L2, of which the paper reports likewise.

  jaxgen import --source sr3 --checkpoint I640000_E37_gen.pth \
    --config configs/sr3.py --workdir W
  jaxgen sample --workdir W --low_res small.npz --out large.npz
  jaxgen train --config configs/sr3.py --config.data.source=folder:/faces \
    --workdir W
"""
from configs import _adm, _base


def get_config(arg="128"):
  """`arg`: 128 or 512, height and width that come out; or `debug`, digits."""
  size = 512 if arg == "512" else 128
  c = _base.base("folder:images", steps=1_000_000, batch=256, size=size)
  c.data.flip = True
  c.model = dict(
      name="models.diffusion.Diffusion",
      net=dict(name="nets.unet.UNet", width=64, attend=(16,), heads=1,
               affine=False, bias=False, enlarge="bicubic", dtype="bfloat16",
               embedding=dict(name="nets.unet.noise_level"),
               **({128: dict(mults=(1, 2, 4, 8, 8), blocks=2, dropout=0.2),
                   512: dict(mults=(1, 2, 4, 8, 16), blocks=1, groups=16)
                   }[size])),
      process=dict(name="diffusion.process.DDPM", steps=2000, beta_1=1e-6,
                   beta_T=1e-2),
      precond=dict(name="diffusion.precond.sr3"),
      draw_t=dict(name="diffusion.times.uniform", lo=1 / 2000),
      objective=dict(name="diffusion.objective.simple"),
      path=dict(name="diffusion.times.even"),
      sampler=dict(name="diffusion.samplers.ancestral"),
      steps=2000, bound=1.0,
      cond=dict(low_res=dict(name="diffusion.degrade.bicubic",
                             size=16 if size == 128 else 64)))
  c.optim.net = dict(name="optim.adam", lr=1e-4, warmup=10_000)
  c.ema.main = _adm.decay_9999(c.batch)
  c.log.pictures = 10_000
  c.checkpoint.update(every=5000, keep_every=50_000)
  if arg == "debug":
    c.model.net.groups = 32
    return _adm.debug(c)
  return c
