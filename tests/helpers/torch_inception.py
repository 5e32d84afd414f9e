"""FID's Inception in plain PyTorch, to be timed against: as torch-fidelity lays it out.

Convolution, batch norm with stored statistics, ReLU: three modules, which nobody
folded. Weights are random. Images are [B, 3, 299, 299].
"""

import torch
from torch import nn


class Conv(nn.Sequential):
  """Of a size, or of rows and columns; without a bias, for the norm has one."""

  def __init__(self, a, b, size=1, stride=1, pad=0):
    norm = nn.BatchNorm2d(b, eps=1e-3)
    super().__init__(nn.Conv2d(a, b, size, stride, pad, bias=False), norm, nn.ReLU(True))


class Concat(nn.ModuleList):
  """Channels of several branches, side by side."""

  def forward(self, x):
    return torch.cat([branch(x) for branch in self], 1)


def chain(a: int, *convs: tuple) -> nn.Sequential:
  """Convolutions in a row, each (channels, size, stride, padding)."""
  layers = []
  for b, *args in convs:
    layers.append(Conv(a, b, *args))
    a = b
  return nn.Sequential(*layers)


def average() -> nn.Module:
  return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def mixed_a(a: int, pooled: int) -> Concat:
  return Concat(
    [
      Conv(a, 64),
      chain(a, (48,), (64, 5, 1, 2)),
      chain(a, (64,), (96, 3, 1, 1), (96, 3, 1, 1)),
      nn.Sequential(average(), Conv(a, pooled)),
    ]
  )


def mixed_b(a: int) -> Concat:
  double = chain(a, (64,), (96, 3, 1, 1), (96, 3, 2))
  return Concat([Conv(a, 384, 3, 2), double, nn.MaxPool2d(3, 2)])


def mixed_c(a: int, w: int) -> Concat:
  row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
  return Concat(
    [
      Conv(a, 192),
      chain(a, (w,), (w, *row), (192, *column)),
      chain(a, (w,), (w, *column), (w, *row), (w, *column), (192, *row)),
      nn.Sequential(average(), Conv(a, 192)),
    ]
  )


def mixed_d(a: int) -> Concat:
  long = chain(a, (192,), (192, (1, 7), 1, (0, 3)), (192, (7, 1), 1, (3, 0)), (192, 3, 2))
  return Concat([chain(a, (192,), (320, 3, 2)), long, nn.MaxPool2d(3, 2)])


def mixed_e(a: int, pool: nn.Module) -> Concat:
  fork = lambda b: Concat([Conv(b, 384, (1, 3), 1, (0, 1)), Conv(b, 384, (3, 1), 1, (1, 0))])
  return Concat(
    [
      Conv(a, 320),
      nn.Sequential(Conv(a, 384), fork(384)),
      nn.Sequential(chain(a, (448,), (384, 3, 1, 1)), fork(384)),
      nn.Sequential(pool, Conv(a, 192)),
    ]
  )


class Inception(nn.Module):
  """-> what FID compares, [B, 2048]."""

  def __init__(self):
    super().__init__()
    self.blocks = nn.Sequential(
      chain(3, (32, 3, 2), (32, 3), (64, 3, 1, 1)),
      nn.MaxPool2d(3, 2),
      chain(64, (80,), (192, 3)),
      nn.MaxPool2d(3, 2),
      *(mixed_a(a, pooled) for a, pooled in ((192, 32), (256, 64), (288, 64))),
      mixed_b(288),
      *(mixed_c(768, w) for w in (128, 160, 160, 192)),
      mixed_d(768),
      mixed_e(1280, average()),
      mixed_e(2048, nn.MaxPool2d(3, 1, 1)),
    )
    self.fc = nn.Linear(2048, 1008)

  def forward(self, x):
    return self.blocks(x).mean((2, 3))

  def folded_size(self) -> int:
    """Parameters, once gains of batch norms are in the kernels before them."""
    gains = {id(m.weight) for m in self.modules() if isinstance(m, nn.BatchNorm2d)}
    return sum(p.numel() for p in self.parameters() if id(p) not in gains)
