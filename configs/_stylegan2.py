"""What the configs of StyleGAN2 share (Karras et al. 2020a, 2020b).

Labels follow `data.classes`.
"""


def model(c, *, size, group, gamma, layers, channels=3, wide=512, **kw):
  """The pair, and R1 on every 16th batch."""
  kw["classes"] = classes = c.data.get_ref("classes")
  c.model = dict(
    name="models.gan.GAN",
    gen=dict(
      name="nets.stylegan2.Generator",
      size=size,
      channels=channels,
      most=wide,
      w_dim=wide,
      layers=layers,
      **kw,
    ),
    disc=dict(name="nets.stylegan2.Discriminator", most=wide, group=group, **kw),
    rule=dict(name="adversarial.losses.nonsaturating"),
    penalties=[
      dict(
        name="models.gan.Penalty", every=16, fn=dict(name="adversarial.penalties.r1", gamma=gamma)
      )
    ],
    z_dim=wide,
    classes=classes,
  )


def optimisers(c, lr, **kw):
  """Of both, for lazy penalties, even where path lengths have no weight."""
  adam = dict(name="optim.adam", lr=lr, b1=0.0, b2=0.99, **kw)
  c.optim.gen, c.optim.disc = dict(adam, lazy=4), dict(adam, lazy=16)
