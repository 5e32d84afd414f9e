"""Which rules lose modes? One generator and discriminator under every rule.

`arg` is DATA-RULE, or RULE alone for grid25; `-debug` after it makes a few
steps of smaller nets. DATA: ring8 (8 Gaussians), grid25 (25), stacked (digits
by three, 1,000 modes: see data/stacked.py). RULE, and what its paper asks for:

| rule | of the paper | optimiser | D's moves for one of G |
| --- | --- | --- | --- |
| minimax, nonsaturating | Goodfellow et al. 2014 | Adam .5, .999 | 1 |
| least_squares | Mao et al. 2017 | Adam .5, .999 | 1 |
| hinge | Lim & Ye 2017, Miyato et al. 2018 | Adam 0, .9 | 1 |
| wgan | Arjovsky et al. 2017: clipping | RMSProp | 5 |
| wgan_gp | Gulrajani et al. 2017 | Adam 0, .9 | 5 |
| r1 | Mescheder et al. 2018: nonsaturating | Adam 0, .99 | 1 |
| relativistic | Huang et al. 2024: R1 and R2 | Adam 0, .99 | 1 |
| diffusion | Karras et al. 2022 | Adam .9, .999 | |
| vae | Kingma & Welling 2014 | Adam .9, .999 | |

Adam's .5 is that of Radford et al. (2016), which the oldest papers precede.
All rules see as many batches, at the same rates, falling to zero; none has
spectral norm (Miyato et al. have). Weights of penalties, and the box of `wgan`,
belong to data and nets of this size: 10 and 0.01 are for larger ones.

  jaxgen train --config configs/modes.py:grid25-wgan_gp --workdir W
  jaxgen modes --out modes         (all of them, judged, in one table)
"""

from configs import _base

SOURCES = {"ring8": "points:ring8", "grid25": "points:grid25", "stacked": "stacked_digits"}
# b1, b2; batches for one move of G; rule; penalties. None: RMSProp.
RULES = {
  "minimax": (0.5, 0.999, 1, "minimax", ()),
  "nonsaturating": (0.5, 0.999, 1, "nonsaturating", ()),
  "least_squares": (0.5, 0.999, 1, "least_squares", ()),
  "hinge": (0.0, 0.9, 1, "hinge", ()),
  "wgan": (None, 0.99, 5, "wasserstein", ()),
  "wgan_gp": (0.0, 0.9, 5, "wasserstein", ("gradient_penalty",)),
  "r1": (0.0, 0.99, 1, "nonsaturating", ("r1",)),
  "relativistic": (0.0, 0.99, 1, "relativistic", ("r1", "r2")),
}
FAMILIES = ("diffusion", "vae")
ARGS = (
  *(
    f"{data}{rule}{end}"
    for data in ("", *(f"{s}-" for s in SOURCES))
    for rule in (*RULES, *FAMILIES)
    for end in ("", "-debug")
  ),
  "debug",
)
FORM = f"DATA-RULE, of {', '.join(SOURCES)} and {', '.join((*RULES, *FAMILIES))}"
# Rates of G and D; the box, such that box * sqrt(a layer's inputs) is about 1;
# weight of gradient_penalty (as in that paper's own code for points), of r1.
POINTS = dict(lr=(5e-4, 1e-3), box=0.1, slope=0.1, gamma=0.1)
STACKED = dict(lr=(1e-3, 1e-3), box=0.05, slope=10.0, gamma=0.5)


def get_config(arg="grid25-wgan_gp"):
  """`arg`: see above; `debug`: a few steps on stacked digits."""
  arg = "stacked-nonsaturating-debug" if arg == "debug" else arg
  name = arg.removesuffix("-debug")
  data, _, rule = name.rpartition("-")
  data = data or "grid25"
  stacked, debug = data == "stacked", arg != name
  c = _base.base(SOURCES[data], steps=3000 if stacked else 10_000, batch=64 if stacked else 256)
  width = 8 if debug else 24 if stacked else 128
  if rule in FAMILIES:
    (diffusion if rule == "diffusion" else vae)(c, stacked, width)
  else:
    gan(c, stacked, width, rule)
  c.ema.main = dict(name="ema.half_life", images=10_000 if stacked else 50_000, ramp=0.1)
  c.log.pictures = 0
  c.checkpoint.every = c.steps // 4
  return _base.debug(c) if debug else c


def gan(c, stacked, width, rule):
  """The same pair for every rule."""
  b1, b2, gen_every, loss, penalties = RULES[rule]
  of = STACKED if stacked else POINTS
  weight = lambda p: {"weight": of["slope"]} if p == "gradient_penalty" else {"gamma": of["gamma"]}
  net = (
    dict(
      gen=dict(name="nets.convs.Generator", size=8, width=width),
      disc=dict(name="nets.convs.Discriminator", width=width),
    )
    if stacked
    else dict(
      gen=dict(name="nets.mlp.Generator", width=width, depth=3),
      disc=dict(name="nets.mlp.Discriminator", width=width, depth=3),
    )
  )
  c.model = dict(
    name="models.gan.GAN",
    **net,
    rule=dict(name=f"adversarial.losses.{loss}"),
    penalties=[
      dict(name="models.gan.Penalty", fn=dict(name=f"adversarial.penalties.{p}", **weight(p)))
      for p in penalties
    ],
    gen_every=gen_every,
    z_dim=64 if stacked else 2,
  )
  for group, lr, every in zip(("gen", "disc"), of["lr"], (gen_every, 1), strict=True):
    if b1 is None:
      box = of["box"] if group == "disc" else None
      c.optim[group] = dict(
        name="optim.rmsprop", lr=lr, b2=b2, decay="linear", every=every, clip_weights=box
      )
    else:
      c.optim[group] = dict(name="optim.adam", lr=lr, b1=b1, b2=b2, decay="linear", every=every)


def diffusion(c, stacked, width):
  """EDM: as `digits_diffusion` and `points_diffusion`."""
  net = (
    dict(
      name="nets.unet.UNet",
      width=max(width, 16),
      mults=(1, 2),
      blocks=1,
      attend=(4,),
      head=16,
      least=4,
    )
    if stacked
    else dict(name="nets.mlp.Denoiser", width=width, depth=3)
  )
  mean, std, lo, steps = (-0.6, 1.0, 0.01, 18) if stacked else (-2.0, 1.5, 0.002, 32)
  c.model = dict(
    name="models.diffusion.Diffusion",
    net=net,
    **_base.edm(0.75 if stacked else 0.5, mean, std, lo=lo, hi=20.0, rho=7.0),
    sampler=dict(name="diffusion.samplers.ancestral", eta=0.0)
    if stacked
    else dict(name="diffusion.samplers.heun"),
    steps=steps,
    bound=1.0 if stacked else None,
  )
  c.optim.net = dict(
    name="optim.adam", lr=3e-3 if stacked else 2e-3, warmup=100, clip=1.0, decay="cosine"
  )


def vae(c, stacked, width):
  """As `digits_vae` and `points_vae`: nets twice as wide, for want of a D."""
  net = (
    dict(name="nets.convs.Codec", size=8, channels=3, z_dim=48, width=width)
    if stacked
    else dict(name="nets.mlp.Codec", z_dim=2, width=2 * width, depth=3)
  )
  c.model = dict(name="models.vae.VAE", net=net, beta=1.0, sigma=0.25 if stacked else 0.03)
  c.optim.net = dict(
    name="optim.adam", lr=1e-3, warmup=100, clip=10.0 if stacked else 100.0, decay="cosine"
  )
