"""StyleGAN2's pair and its moves in plain PyTorch, to be timed against.

Karras et al. 2020a, by the operations that the reference code takes on CPUs: filters
are depthwise convolutions, and styles scale what goes in and comes out of one
convolution for the whole batch. Images are [B, 3, H, W].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def blur(x, pad, gain=1.0, stride=1):
  """The filter 1, 3, 3, 1 along both axes."""
  row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
  kernel = (gain * row[:, None] * row).expand(x.shape[1], 1, 4, 4)
  return F.conv2d(F.pad(x, [pad] * 4), kernel, stride=stride, groups=x.shape[1])


def upsample(x):
  """Twice the height and width, by the same filter."""
  row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
  kernel = (row[:, None] * row).expand(x.shape[1], 1, 4, 4)
  return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def lrelu(x):
  return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Linear(nn.Module):
  """With an equalised learning rate."""

  def __init__(self, a, b, lr=1.0, bias=0.0, act=False):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(b, a) / lr)
    self.bias = nn.Parameter(torch.full((b,), bias))
    self.lr, self.scale, self.act = lr, lr / math.sqrt(a), act

  def forward(self, x):
    y = F.linear(x, self.weight * self.scale, self.bias * self.lr)
    return lrelu(y) if self.act else y


class Conv(nn.Module):
  """With an equalised learning rate; `down` filters and halves."""

  def __init__(self, a, b, size=3, down=False, act=True):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(b, a, size, size))
    self.bias = nn.Parameter(torch.zeros(b)) if act else None
    self.scale, self.size, self.down = 1 / math.sqrt(a * size**2), size, down

  def forward(self, x, gain=1.0):
    weight = self.weight * self.scale
    if not self.down:
      y = F.conv2d(x, weight, padding=self.size // 2)
    elif self.size == 1:
      y = F.conv2d(blur(x, 1, stride=2), weight)
    else:
      y = F.conv2d(blur(x, 2), weight, stride=2)
    return (y if self.bias is None else lrelu(y + self.bias[:, None, None])) * gain


class Layer(nn.Module):
  """Convolution modulated by w, noise, bias, leaky ReLU."""

  def __init__(self, a, b, w_dim, up=False):
    super().__init__()
    self.affine, self.up = Linear(w_dim, a, bias=1.0), up
    self.weight, self.bias = nn.Parameter(torch.randn(b, a, 3, 3)), nn.Parameter(torch.zeros(b))
    self.strength = nn.Parameter(torch.zeros([]))

  def forward(self, x, w):
    style = self.affine(w)
    x = x * style[:, :, None, None]
    if self.up:
      y = blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), 1, gain=4)
    else:
      y = F.conv2d(x, self.weight, padding=1)
    scale = (style.square() @ self.weight.square().sum((2, 3)).T + 1e-8).rsqrt()
    noise = torch.randn(len(y), 1, *y.shape[2:]) * self.strength
    y = torch.addcmul(noise, y, scale[:, :, None, None])
    return lrelu(y + self.bias[:, None, None])


class ToRGB(nn.Module):
  def __init__(self, a, w_dim):
    super().__init__()
    self.affine, self.scale = Linear(w_dim, a, bias=1.0), 1 / math.sqrt(a)
    self.weight, self.bias = nn.Parameter(torch.randn(3, a, 1, 1)), nn.Parameter(torch.zeros(3))

  def forward(self, x, w):
    style = self.affine(w) * self.scale
    return F.conv2d(x * style[:, :, None, None], self.weight, self.bias)


class Synthesis(nn.Module):
  """w of every layer [B, L, W] -> images, summed over resolutions ("skip")."""

  def __init__(self, widths, w_dim):
    super().__init__()
    self.const = nn.Parameter(torch.randn(widths[0], 4, 4))
    pairs = list(zip(widths, widths[1:], strict=False))
    self.ups = nn.ModuleList(Layer(a, b, w_dim, up=True) for a, b in pairs)
    self.convs = nn.ModuleList(Layer(b, b, w_dim) for b in widths)
    self.rgbs = nn.ModuleList(ToRGB(b, w_dim) for b in widths)

  def forward(self, ws):
    h = self.convs[0](self.const.expand(len(ws), -1, -1, -1), ws[:, 0])
    x = self.rgbs[0](h, ws[:, 1])
    for i, up in enumerate(self.ups):
      h = self.convs[i + 1](up(h, ws[:, 2 * i + 1]), ws[:, 2 * i + 2])
      x = upsample(x) + self.rgbs[i + 1](h, ws[:, 2 * i + 3])
    return x


class Generator(nn.Module):
  """z [B, Z], and another z whose styles take over somewhere -> images."""

  def __init__(self, widths=(128, 128, 128, 64), w_dim=128, layers=8):
    super().__init__()
    self.count = 2 * len(widths)
    self.register_buffer("w_avg", torch.zeros(w_dim))
    self.mapping = nn.Sequential(*(Linear(w_dim, w_dim, 0.01, act=True) for _ in range(layers)))
    self.synthesis = Synthesis(widths, w_dim)

  def map(self, z, other):
    w, other = (
      self.mapping(t * (t.square().mean(1, keepdim=True) + 1e-8).rsqrt()) for t in (z, other)
    )
    self.w_avg.lerp_(w.detach().mean(0), 0.005)
    cut = torch.where(torch.rand(len(z)) < 0.9, torch.randint(1, self.count, (len(z),)), self.count)
    first = torch.arange(self.count) < cut[:, None]
    return torch.where(first[..., None], w[:, None], other[:, None])

  def forward(self, z, other):
    return self.synthesis(self.map(z, other))


class DiscBlock(nn.Module):
  def __init__(self, a, b):
    super().__init__()
    self.conv_0, self.conv_1 = Conv(a, a), Conv(a, b, down=True)
    self.skip = Conv(a, b, 1, down=True, act=False)

  def forward(self, x):
    gain = math.sqrt(0.5)
    return self.conv_1(self.conv_0(x), gain) + self.skip(x, gain)


class Discriminator(nn.Module):
  """Images -> logits [B]; deviations of four examples are a feature."""

  def __init__(self, widths=(64, 128, 128, 128), group=4):
    super().__init__()
    pairs = zip(widths, widths[1:], strict=False)
    self.rgb, self.group, w = Conv(3, widths[0], 1), group, widths[-1]
    self.blocks = nn.Sequential(*(DiscBlock(a, b) for a, b in pairs))
    self.conv, self.fc, self.out = Conv(w + 1, w), Linear(16 * w, w, act=True), Linear(w, 1)

  def forward(self, x):
    h = self.blocks(self.rgb(x))
    groups = h.unflatten(0, (self.group, -1))
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    deviation = deviation.repeat(self.group)[:, None, None, None].expand(-1, 1, *h.shape[2:])
    h = self.fc(self.conv(torch.cat([h, deviation], 1)).flatten(1))
    return self.out(h)[:, 0]


class Game:
  """Sixteen batches: D and G on each, R1 once, path lengths four times, G's average.

  Penalties differentiate twice, which no compiled net can: these call the eager nets.
  """

  def __init__(self, nets, x, average, compile, gamma=1.0, z_dim=128):
    self.x, self.z, self.gamma = x, (len(x), z_dim), gamma
    self.gen, self.disc = (net.train() for net in nets)
    self.nets = [compile(net) for net in nets]
    self.average, self.mean = average(self.gen), torch.zeros([])
    adam = lambda net, lazy: torch.optim.Adam(
      net.parameters(), 0.0025 * lazy, (0.0, 0.99**lazy), fused=True
    )
    self.optimizers = {self.gen: adam(self.gen, 4 / 5), self.disc: adam(self.disc, 16 / 17)}

  def round(self):
    for i in range(16):
      self.move(self.disc, self.disc_loss)
      if i % 16 == 0:
        self.move(self.disc, self.r1)
      self.move(self.gen, self.gen_loss)
      if i % 4 == 0:
        self.move(self.gen, self.path)
      self.average()

  def move(self, net, loss):
    other = self.gen if net is self.disc else self.disc
    other.requires_grad_(False)
    self.optimizers[net].zero_grad()
    loss().backward()
    self.optimizers[net].step()
    other.requires_grad_(True)

  def fake(self):
    return self.nets[0](torch.randn(self.z), torch.randn(self.z))

  def disc_loss(self):
    with torch.no_grad():
      fake = self.fake()
    disc = self.nets[1]
    return F.softplus(-disc(self.x)).mean() + F.softplus(disc(fake)).mean()

  def gen_loss(self):
    return F.softplus(-self.nets[1](self.fake())).mean()

  def r1(self):
    x = self.x.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(self.disc(x).sum(), x, create_graph=True)
    return 16 * self.gamma / 2 * slope.square().sum((1, 2, 3)).mean()

  def path(self):
    z = lambda: torch.randn(self.z)[::2]
    ws = self.gen.map(z(), z())
    image = self.gen.synthesis(ws)
    y = torch.randn_like(image) / image.shape[-1]
    (slope,) = torch.autograd.grad((image * y).sum(), ws, create_graph=True)
    lengths = slope.square().sum(2).mean(1).sqrt()
    mean = self.mean.lerp(lengths.mean(), 0.01)
    self.mean = mean.detach()
    return 4 * 2 * (lengths - mean).square().mean()
