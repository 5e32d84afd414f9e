"""What VQ-VAE-2 and its prior share: the data, and the codec."""

from configs import _base

SOURCES = {"imagenet": "tfds:imagenet2012", "ffhq": "folder:ffhq", "photos": "photos"}
SMALL = ("digits", "photos", "debug")


def experiment(arg, steps, batch):
  """A config of the codec's data that has no model yet."""
  size = {"imagenet": 256, "ffhq": 256, "photos": 32}.get(arg, 0)  # digits as they are
  c = _base.base(SOURCES.get(arg, "digits"), steps=steps, batch=batch, size=size)
  if size:
    c.data.update(flip=True, channels=3)
  return c


def codec(arg):
  """The codec: of SMALL a smaller net on built-in data."""
  net = dict(name="nets.vqvae2.TwoLevels", channels=3, width=128, blocks=2, hidden=32, dim=64)
  codes = 512
  if arg in SMALL:
    photos = arg == "photos"
    net.update(channels=3 if photos else 1, width=64, dim=16, halvings=2 if photos else 1)
    codes = 128
  if arg == "debug":
    net.update(width=16, hidden=8)
  return dict(name="models.vqvae.VQVAE2", net=net, codes=codes)
