"""SiT: Ma et al. 2024, arXiv 2401.08740, as willisma/SiT has it: DiT as a flow.

The net is DiT's to the weight, the path to the noise a straight line, and what
is predicted its velocity. ImageNet 256x256 as for `dit.py`, whose counts are
these: published FID of `XL-2` 2.06, Inception Score 270.27 (SDE of 250 steps,
guidance 1.5, 7,000,000 updates of 256 images); without guidance 8.3 by the SDE
and 9.5 by the ODE. The same weights by the ODE: `--sampler ode_heun`.

  jaxgen import --source sit --checkpoint SiT-XL-2-256x256.pt \
    --config configs/sit.py:XL-2 --config.model.codec_workdir=K --workdir W
  jaxgen sample --workdir W --guidance 1.5 --out grid.png

K and the latents that training takes are those of `dit.py`.

| arg | parameters |
| --- | --- |
| S-2, S-4, S-8 | 32,865,056, 32,920,448, 33,142,016 |
| B-2, B-4, B-8 | 130,315,808, 130,426,496, 130,869,248 |
| L-2, L-4, L-8 | 457,840,672, 457,988,224, 458,578,432 |
| XL-2, XL-4, XL-8 | 674,834,720, 675,000,704, 675,664,640 |
| XL-2-512 | 674,834,720 |

Other interpolants are `--config.model.model.process.name=diffusion.process.GVP`
or `.VP`, here and in `precond.process`; nets of the score or of eps take `precond`
`diffusion.interpolants.score` or `.eps`, with a `weighting` of that module.

On pixels and two cores, by the ODE in 50 steps of Euler: `digits` (723,844
parameters), `photos` (1,282,224), `digits-modern` (725,412) and `photos-modern`
(1,350,192), as in `dit.py`. Times of training are drawn in the middle (Esser
et al. 2024). Fréchet of 500 samples of `digits`, as there: 3.0 after 2000 steps
of 32 at 4e-3; evenly drawn times, 1000 steps of 64 and 2e-3: 6.4.

  jaxgen train --config configs/sit.py:digits --workdir D
"""

from configs import _dit

ARGS = (*_dit.LATENTS, *_dit.SMALL, "debug")


def get_config(arg="XL-2"):
  """`arg`: size and patch, or one of SMALL; `debug`: a few steps of a small net."""
  flow = dict(name="diffusion.process.Flow")
  parts = dict(
    process=flow,
    precond=dict(name="diffusion.interpolants.velocity", process=dict(flow)),
    draw_t=dict(name="diffusion.times.uniform", lo=1e-5, hi=1.0),  # float32 wants some noise
    path=dict(name="diffusion.times.span", lo=0.04),
    sampler=dict(name="diffusion.interpolants.sde_euler"),
    learned=False,
  )
  if arg in _dit.LATENTS:
    return _dit.latents(arg, "dit.SiT", **parts)
  ode = dict(
    path=dict(name="diffusion.times.even"),
    sampler=dict(name="diffusion.interpolants.ode_euler"),
    steps=50,
  )
  if arg == "debug":  # what is published, and not what `digits` has
    ode["sampler"] = parts["sampler"]
    return _dit.debug(_dit.small("digits", "dit.SiT", "", **parts | ode))
  # Times in the middle, where velocities are hard to tell (Esser et al. 2024).
  ode["draw_t"] = dict(name="diffusion.times.logit_normal", mean=0.0, std=1.0)
  return _dit.small(arg, "dit.DiT", "dit_modern.ModernDiT", **parts | ode)
