"""EDM2: Karras et al. 2024, arXiv 2312.02696, config G of NVlabs/edm2."""

from configs import _base

ARGS = ("digits", "photos", "debug")


def get_config(arg="digits"):
  """`arg`."""
  debug, arg = arg == "debug", "digits" if arg == "debug" else arg
  if arg == "digits":
    c = _base.base("digits", steps=1000, batch=64, classes=10)
    net = dict(width=24, mults=(1, 2), blocks=1, attend=(4,), head=24, labels=11)
    parts = dict(
      _base.edm(0.75, -0.6, 1.0, lo=0.01, hi=20.0, rho=7.0),
      sampler=dict(name="diffusion.samplers.ancestral", eta=0.0),
      steps=25,
      classes=10,
      label_drop=0.1,
    )
    lr, half = 1e-2, 10_000
  else:
    c = _base.base("photos", steps=1000, batch=32, size=32)
    c.data.flip = True
    net = dict(width=32, mults=(1, 2), blocks=1, attend=(8,), head=64, patch=2)
    parts = dict(
      _base.edm(0.5, -1.2, 1.2, lo=0.002, hi=80.0, rho=7.0),
      sampler=dict(name="diffusion.samplers.dpmpp_2m"),
      steps=18,
    )
    lr, half = 1e-2, 10_000
  c.model = dict(
    name="models.diffusion.Diffusion", net=dict(name="nets.edm2.EDM2", **net), **parts, bound=1.0
  )
  c.optim.net = dict(
    name="optim.adam", lr=lr, b2=0.99, warmup=50, decay="inverse_sqrt", after=200, unit_rms=True
  )
  c.ema.main = dict(name="ema.half_life", images=half, ramp=0.1)
  if debug:
    c.model.net.update(width=16, head=16)
    return _base.debug(c)
  return c
