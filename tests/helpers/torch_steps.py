"""PyTorch's side of `against_torch.py`: runs where there is no jax.

  python tests/helpers/torch_steps.py CASE BATCH THREADS LAYOUT

Prints how many parameters there are; then, for each number of rounds that it reads,
seconds of one round by the clock and of the CPU.
"""

import copy
import math
import sys

import torch
import torch.nn.functional as F
import torch_nets
from timed_rounds import answer


def edm(net, x):
  """Karras et al. 2022: the loss of a denoiser, Table 1."""
  sigma = torch.exp(torch.randn(len(x), 1, 1, 1) * 1.2 - 1.2)
  total = sigma**2 + 0.25
  x_t = x + sigma * torch.randn_like(x)
  out = net(x_t / total.sqrt(), sigma.flatten().log() / 4)
  target = (x - 0.25 / total * x_t) / (sigma * 0.5 / total.sqrt())
  return F.mse_loss(out, target)


@torch.inference_mode()
def ddim(net, x, steps=25):
  """Euler's method on Karras et al.'s path (Alg. 1), which is DDIM."""
  grid = torch.linspace(0, 1, steps, dtype=torch.float64)
  sigmas = ((1 - grid) * 80 ** (1 / 7) + grid * 0.002 ** (1 / 7)) ** 7
  x = 80 * torch.randn_like(x)
  for sigma, after in zip(sigmas.tolist(), [*sigmas.tolist()[1:], 0.0], strict=True):
    total = sigma**2 + 0.25
    out = net(x / math.sqrt(total), torch.full((len(x),), math.log(sigma) / 4))
    x_0 = 0.25 / total * x + sigma * 0.5 / math.sqrt(total) * out
    x = x_0 + after / sigma * (x - x_0.clamp(-1, 1))
  return x


def vae(net, x):
  """The evidence bound, with a sigma of 0.1."""
  x_hat, mean, logvar = net(x)
  kl = (mean**2 + logvar.exp() - 1 - logvar).sum() / 2
  return (((x_hat - x) ** 2).sum() / 0.02 + kl) / len(x)


class One:
  """Adam and an average of one net, by a loss of (net, x)."""

  def __init__(self, net, loss, x, clip):
    self.net, self.loss, self.x, self.clip = net.train(), loss, x, clip
    self.average = copy.deepcopy(net)
    self.optimizer = torch.optim.Adam(net.parameters(), 1e-4, fused=True)

  def round(self):
    self.optimizer.zero_grad()
    self.loss(self.net, self.x).backward()
    torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip, foreach=True)
    self.optimizer.step()
    with torch.no_grad():
      torch._foreach_lerp_([*self.average.parameters()], [*self.net.parameters()], 0.01)


class Two:
  """D's moves, and G's after every `every`-th; both losses of logits."""

  def __init__(self, nets, losses, x, z, every, b1):
    self.nets, self.losses, self.x, self.z, self.every = nets, losses, x, z, every
    adam = lambda net: torch.optim.Adam(net.parameters(), 2e-4, (b1, 0.9), fused=True)
    self.optimizers = [adam(net.train()) for net in nets]

  def round(self):
    (gen, disc), (gen_loss, disc_loss) = self.nets, self.losses
    for i in range(self.every):
      with torch.no_grad():
        fake = gen(torch.randn(self.z))
      self.move(1, lambda fake=fake: disc_loss(disc(self.x), disc(fake)))
      if i == 0:
        disc.requires_grad_(False)
        self.move(0, lambda: gen_loss(disc(gen(torch.randn(self.z)))))
        disc.requires_grad_(True)

  def move(self, i, loss):
    self.optimizers[i].zero_grad()
    loss().backward()
    self.optimizers[i].step()


def nonsaturating(fake):
  return F.softplus(-fake).mean()


def logistic(real, fake):
  return F.softplus(-real).mean() + F.softplus(fake).mean()


def hinge(real, fake):
  return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def case(name, batch, layout):
  """-> parameters of each net, f() that takes a round."""
  size = 64 if name == "dcgan" else 32
  place = lambda t: t.to(memory_format=layout)
  x = place(torch.rand(batch, 3, size, size) * 2 - 1)
  if name in ("dcgan", "sngan"):
    nets = [place(net) for net in getattr(torch_nets, name)()]
    if name == "dcgan":
      game = Two(nets, (nonsaturating, logistic), x, (batch, 100, 1, 1), 1, 0.5)
    else:
      game = Two(nets, (lambda fake: -fake.mean(), hinge), x, (batch, 128), 5, 0.0)
    return nets, game.round
  kind = name.partition("_")[0]
  net = place({"unet": torch_nets.UNet, "dit": torch_nets.DiT, "vae": torch_nets.VAE}[kind]())
  if name == "unet_forward":
    net.eval()
    return [net], torch.inference_mode()(lambda: net(x, torch.zeros(batch)))
  if name == "unet_ddim":
    net.eval()
    return [net], lambda: ddim(net, x)
  return [net], One(net, vae if kind == "vae" else edm, x, 100.0 if kind == "vae" else 1.0).round


def main() -> None:
  """Takes rounds as it is told to."""
  name, batch, threads, layout = sys.argv[1:]
  torch.set_num_threads(int(threads))
  nets, take = case(name, int(batch), getattr(torch, layout))
  answer([sum(p.numel() for p in net.parameters()) for net in nets], take)


if __name__ == "__main__":
  main()
