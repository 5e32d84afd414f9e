"""What the autoencoders of latent diffusion share: `ldm_kl` and `ldm_vq`."""

from configs import _base

# Published nets by downsampling: channel multipliers, heights that attend, channels
# of latents; of VQ also the number of codes.
KL = {
  "f4": ((1, 2, 4), (), 3),
  "f8": ((1, 2, 4, 4), (), 4),
  "f16": ((1, 1, 2, 2, 4), (16,), 16),
  "f32": ((1, 1, 2, 2, 4, 4), (16, 8), 64),
}
VQ = {
  "f4": ((1, 2, 4), (), 3, 8192),
  "f4-noattn": ((1, 2, 4), (), 3, 8192),
  "f8": ((1, 2, 2, 4), (32,), 4, 16_384),
  "f8-n256": ((1, 2, 2, 4), (32,), 4, 256),
  "f16": ((1, 1, 2, 2, 4), (16,), 8, 16_384),
}
OF_256 = dict(width=128, blocks=2, size=256, channels=3)


def kl_net(size):
  """A published net of Gaussian latents, one of KL."""
  mults, attend, z = KL[size]
  return dict(name="nets.autoencoder.KLNet", mults=mults, attend=attend, z=z, dim=z, **OF_256)


def vq_net(size):
  """A published net of codes, one of VQ."""
  mults, attend, z, codes = VQ[size]
  return dict(
    name="nets.autoencoder.VQNet",
    mults=mults,
    attend=attend,
    middle=size != "f4-noattn",
    z=z,
    dim=z,
    codes=codes,
    **OF_256,
  )


def published(net, latents, steps, *, start, disc_weight, layers=3, perceptual=True):
  """A config of a size in the paper's Table 8, for one's own images of 256."""
  c = _base.base("folder:images", steps=steps, batch=24, size=256)
  c.data.update(flip=True, channels=3)
  c.model = dict(
    name="models.codec.Autoencoder",
    net=net,
    latents=latents,
    disc=dict(name="nets.patchgan.PatchGAN", width=64, layers=layers),
    disc_weight=disc_weight,
    start=start,
  )
  if perceptual:
    c.model.perceptual = dict(name="nets.lpips.LPIPS", net="vgg")
  adam = dict(name="optim.adam", lr=4.5e-6 * c.get_ref("batch"), b1=0.5, b2=0.9)
  c.optim.net, c.optim.disc = adam, adam
  c.log.pictures = 5000
  c.checkpoint.update(every=5000, keep_every=50_000)
  return c


def small_kl(arg):
  """Of Gaussian latents, which models of latents take as it is."""
  return small(arg, "KLNet", dict(name="models.codec.KL", weight=0.03))


def small(arg, net, latents, **kw):
  """A config of a small net, for `digits`, `photos`, `debug`, or `digits-judge`."""
  arg, _, judge = arg.partition("-")
  photos, debug = arg == "photos", arg == "debug"
  size = 32 if photos else 8
  c = _base.base("photos" if photos else "digits", steps=1000, batch=32, size=size if photos else 0)
  c.data.flip = photos
  width = 8 if debug else 16
  c.model = dict(
    name="models.codec.Autoencoder",
    net=dict(
      name=f"nets.autoencoder.{net}",
      width=width,
      mults=(1, 2, 2) if photos else (1, 2),
      blocks=1,
      attend=(),
      middle=not debug,
      size=size,
      channels=3 if photos else 1,
      **kw,
    ),
    latents=latents,
    disc=dict(name="nets.patchgan.PatchGAN", width=width // 2, layers=2 if photos else 1),
    # The published half is as much of a gradient as |x - x'| has: too much here.
    disc_weight=0.1,
    start=0 if debug else 300,
  )
  if judge:
    classifier = dict(width=16, classes=7) if photos else dict(width=32, classes=10)
    classifier |= dict(name="nets.convs.Classifier", features=64)
    c.model.perceptual = dict(name="nets.convs.JudgeLayers", net=classifier, weight=1.0)
    c.model.judge_workdir = ""
  adam = dict(name="optim.adam", lr=2e-3, b1=0.5, b2=0.9, warmup=50, clip=10.0, decay="cosine")
  c.optim.net, c.optim.disc = adam, adam
  c.ema.main = dict(name="ema.half_life", images=5_000, ramp=0.1)
  c.log.update(every=50, pictures=500)
  return c
