"""Nets of jaxgen's configs in plain PyTorch, to be timed against.

Written from the papers' architectures, layer for layer; parameters are as many as
ours, which `against_torch.py` checks. Images are [B, C, H, W].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def norm(channels: int) -> nn.GroupNorm:
  """Groups of four channels at least, 32 at most."""
  most = min(32, channels // 4)
  return nn.GroupNorm(max(d for d in range(1, most + 1) if channels % d == 0), channels)


def conv(a: int, b: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
  return nn.Conv2d(a, b, size, stride, size // 2)


def sinusoids(t: torch.Tensor, width: int) -> torch.Tensor:
  w = torch.exp(-math.log(1e4) / (width // 2) * torch.arange(width // 2))
  angle = t[:, None] * w
  return torch.cat([angle.cos(), angle.sin()], 1)


class ResBlock(nn.Module):
  """ADM's, with an adaptive group norm."""

  def __init__(self, a, b, emb, dropout):
    super().__init__()
    self.norm_1, self.conv_1, self.emb = norm(a), conv(a, b), nn.Linear(emb, 2 * b)
    self.norm_2, self.drop, self.conv_2 = norm(b), nn.Dropout(dropout), conv(b, b)
    self.skip = nn.Identity() if a == b else conv(a, b, 1)

  def forward(self, x, emb):
    h = self.conv_1(F.silu(self.norm_1(x)))
    scale, shift = self.emb(emb)[:, :, None, None].chunk(2, 1)
    h = F.silu(torch.addcmul(shift, self.norm_2(h), 1 + scale))
    return self.skip(x) + self.conv_2(self.drop(h))


class Attention(nn.Module):
  """Of one head, over positions."""

  def __init__(self, c):
    super().__init__()
    self.norm, self.qkv, self.proj = norm(c), nn.Linear(c, 3 * c), nn.Linear(c, c)

  def forward(self, x):
    h = self.norm(x).flatten(2).transpose(1, 2)
    q, k, v = self.qkv(h)[:, None].chunk(3, -1)
    h = self.proj(F.scaled_dot_product_attention(q, k, v)[:, 0])
    return x + h.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
  """ADM's of two levels, of which the lower has attention; pixels in squares of 2 x 2."""

  def __init__(self, width=32, dropout=0.05):
    super().__init__()
    w, emb = width, 4 * width
    res = lambda a, b: ResBlock(a, b, emb, dropout)
    self.width = w
    self.time = nn.Sequential(nn.Linear(w, emb), nn.SiLU(), nn.Linear(emb, emb), nn.SiLU())
    self.first, self.in_1, self.down = conv(12, w), res(w, w), conv(w, w, stride=2)
    self.in_3, self.in_3_attn = res(w, 2 * w), Attention(2 * w)
    self.mid_0, self.mid_1, self.mid_2 = res(2 * w, 2 * w), Attention(2 * w), res(2 * w, 2 * w)
    self.out_0, self.out_0_attn = res(4 * w, 2 * w), Attention(2 * w)
    self.out_1, self.out_1_attn, self.up = res(3 * w, 2 * w), Attention(2 * w), conv(2 * w, 2 * w)
    self.out_2, self.out_3 = res(3 * w, w), res(2 * w, w)
    self.head_norm, self.head = norm(w), conv(w, 12)

  def forward(self, x, c_noise):
    emb = self.time(sinusoids(c_noise, self.width))
    a = self.first(F.pixel_unshuffle(x, 2))
    b = self.in_1(a, emb)
    c = self.down(b)
    h = d = self.in_3_attn(self.in_3(c, emb))
    h = self.mid_2(self.mid_1(self.mid_0(h, emb)), emb)
    h = self.out_0_attn(self.out_0(torch.cat([h, d], 1), emb))
    h = self.out_1_attn(self.out_1(torch.cat([h, c], 1), emb))
    h = self.up(F.interpolate(h, scale_factor=2))
    h = self.out_2(torch.cat([h, b], 1), emb)
    h = self.out_3(torch.cat([h, a], 1), emb)
    return F.pixel_shuffle(self.head(F.silu(self.head_norm(h))), 2)


class Block(nn.Module):
  """DiT's, adaLN-zero."""

  def __init__(self, d, heads):
    super().__init__()
    self.heads, self.ada = heads, nn.Linear(d, 6 * d)
    self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
    self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU("tanh"), nn.Linear(4 * d, d))

  def forward(self, x, c):
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.ada(c)[:, None].chunk(6, -1)
    h = torch.addcmul(shift_1, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale_1)
    split = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
    h = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    x = torch.addcmul(x, gate_1, self.proj(h))
    h = torch.addcmul(shift_2, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale_2)
    return torch.addcmul(x, gate_2, self.mlp(h))


class DiT(nn.Module):
  """Peebles & Xie 2023, without labels."""

  def __init__(self, d=128, depth=4, heads=4, patch=4, size=32):
    super().__init__()
    self.patch = patch
    self.embed = nn.Conv2d(3, d, patch, patch)
    self.register_buffer("place", torch.randn(1, (size // patch) ** 2, d))
    self.time = nn.Sequential(nn.Linear(256, d), nn.SiLU(), nn.Linear(d, d))
    self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
    self.ada, self.head = nn.Linear(d, 2 * d), nn.Linear(d, 3 * patch**2)

  def forward(self, x, c_noise):
    h = self.embed(x).flatten(2).transpose(1, 2) + self.place
    c = F.silu(self.time(sinusoids(c_noise, 256)))
    for block in self.blocks:
      h = block(h, c)
    shift, scale = self.ada(c)[:, None].chunk(2, -1)
    h = self.head(torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale))
    side = x.shape[-1] // self.patch
    return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, (side, side)), self.patch)


class VAE(nn.Module):
  """Images of 32 x 32 in three halvings, and back."""

  def __init__(self, width=16, z_dim=64):
    super().__init__()
    w = [width * 2**i for i in range(4)]
    act = lambda c: [norm(c), nn.SiLU()]
    encoder, decoder = [conv(3, width)], []
    for a, b in zip(w, w[1:], strict=False):
      encoder += [*act(a), conv(a, a), conv(a, b, stride=2)]
    encoder += [*act(w[3]), conv(w[3], w[3]), *act(w[3]), nn.Flatten()]
    encoder += [nn.Linear(16 * w[3], 4 * width), nn.SiLU(), nn.Linear(4 * width, 2 * z_dim)]
    decoder += [nn.Linear(z_dim, 4 * width), nn.SiLU(), nn.Linear(4 * width, 16 * w[3])]
    decoder += [nn.Unflatten(1, (w[3], 4, 4))]
    for a, b in zip(w[:0:-1], w[-2::-1], strict=True):
      decoder += [*act(a), nn.Upsample(scale_factor=2), conv(a, b)]
    decoder += [*act(width), conv(width, width), *act(width), conv(width, 3)]
    self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

  def forward(self, x):
    """-> reconstruction, means and log variances."""
    mean, logvar = self.encoder(x).chunk(2, 1)
    return self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp()), mean, logvar


def dcgan() -> tuple[nn.Module, nn.Module]:
  """Radford et al. 2016 at 64 x 64: G of z [B, 100, 1, 1], D."""
  grow = lambda a, b, *args: nn.ConvTranspose2d(a, b, 4, *args, bias=False)
  halve = lambda a, b: nn.Conv2d(a, b, 4, 2, 1, bias=False)
  gen, disc = [], []
  for i, (a, b) in enumerate(zip((100, 512, 256, 128), (512, 256, 128, 64), strict=True)):
    gen += [grow(a, b, *((2, 1) if i else ())), nn.BatchNorm2d(b), nn.ReLU(True)]
  gen += [grow(64, 3, 2, 1), nn.Tanh()]
  for i, (a, b) in enumerate(zip((3, 64, 128, 256), (64, 128, 256, 512), strict=True)):
    disc += [halve(a, b), *([nn.BatchNorm2d(b)] if i else []), nn.LeakyReLU(0.2, True)]
  disc += [nn.Conv2d(512, 1, 4, bias=False), nn.Flatten(0)]
  return nn.Sequential(*gen), nn.Sequential(*disc)


class Up(nn.Module):
  """A block of SNGAN's generator."""

  def __init__(self, a, b):
    super().__init__()
    self.norm_1, self.norm_2 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
    self.conv_1, self.conv_2, self.skip = conv(a, b), conv(b, b), conv(a, b, 1)

  def forward(self, x):
    h = self.conv_1(F.interpolate(F.relu(self.norm_1(x)), scale_factor=2))
    h = self.conv_2(F.relu(self.norm_2(h)))
    return F.interpolate(self.skip(x), scale_factor=2) + h


class Down(nn.Module):
  """A block of SNGAN's discriminator."""

  def __init__(self, a, b, halve, first):
    super().__init__()
    wide = lambda *args: spectral_norm(conv(*args))
    self.halve, self.first = halve, first
    self.conv_1, self.conv_2 = wide(a, b if first else a), wide(b if first else a, b)
    self.skip = wide(a, b, 1) if halve or a != b else nn.Identity()

  def forward(self, x):
    pool = (lambda h: F.avg_pool2d(h, 2)) if self.halve else (lambda h: h)
    h = self.conv_1(x if self.first else F.relu(x))
    return pool(self.conv_2(F.relu(h))) + self.skip(pool(x))


class Head(nn.Module):
  """Sums over positions, and one number of them."""

  def __init__(self, c):
    super().__init__()
    self.linear = spectral_norm(nn.Linear(c, 1))

  def forward(self, x):
    return self.linear(F.relu(x).sum((2, 3)))[:, 0]


def sngan(width=64) -> tuple[nn.Module, nn.Module]:
  """Miyato et al. 2018 at 32 x 32: G of z [B, 128], D."""
  gen = [nn.Linear(128, 16 * width), nn.Unflatten(1, (width, 4, 4))]
  gen += [*(Up(width, width) for _ in range(3)), nn.BatchNorm2d(width), nn.ReLU(True)]
  gen += [conv(width, 3), nn.Tanh()]
  disc = [Down(3 if i == 0 else width, width, i < 2, i == 0) for i in range(4)]
  return nn.Sequential(*gen), nn.Sequential(*disc, Head(width))
