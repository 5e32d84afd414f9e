"""PyTorch's side of `against_torch.py`: runs where there is no jax.

  python tests/helpers/torch_steps.py CASE BATCH THREADS WAY

WAY is "eager", "channels_last" (eager, with channels last in memory) or "compiled", by
torch.compile, which chooses a layout itself. Prints how many parameters there are;
then, for each number of rounds that it reads, seconds of one round by the clock and of
the CPU.
"""

import math
import sys

import torch
import torch.nn.functional as F
import torch_nets
import torch_stylegan2
from timed_rounds import answer
from torch_inception import Inception


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


def average(net):
  """f() that moves a copy of the net a hundredth of the way to it."""
  copied = [p.detach().clone() for p in net.parameters()]
  weights = [p.detach() for p in net.parameters()]
  return lambda: torch._foreach_lerp_(copied, weights, 0.01)


class One:
  """Adam and an average of one net, by a loss of (net, x)."""

  def __init__(self, net, loss, x, clip):
    self.net, self.loss, self.x, self.clip = net.train(), loss, x, clip
    self.average = average(net)
    self.optimizer = torch.optim.Adam(net.parameters(), 1e-4, fused=True)

  def round(self):
    self.optimizer.zero_grad()
    self.loss(self.net, self.x).backward()
    torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip, foreach=True)
    self.optimizer.step()
    self.average()


class Two:
  """D's moves, and G's after every `every`-th; both losses of logits."""

  def __init__(self, nets, losses, x, z, every, b1, compile):
    self.losses, self.x, self.z, self.every = losses, x, z, every
    adam = lambda net: torch.optim.Adam(net.parameters(), 2e-4, (b1, 0.9), fused=True)
    self.optimizers = [adam(net.train()) for net in nets]
    self.nets = [compile(net) for net in nets]

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


def case(name, batch, way):
  """-> parameters of each net, f() that takes a round."""
  size = {"dcgan": 64, "inception": 299}.get(name, 32)
  layout = torch.channels_last if way == "channels_last" else torch.contiguous_format
  place = lambda t: t.to(memory_format=layout)
  compile = torch.compile if way == "compiled" else lambda f: f
  x = place(torch.rand(batch, 3, size, size) * 2 - 1)
  if name == "inception":
    net = place(Inception().eval())
    torch._inductor.config.freezing = True  # norms are folded, as ours are
    forward = torch.no_grad()(compile(net))
    return [net.folded_size()], lambda: forward(x)
  if name == "stylegan2":
    nets = [place(net) for net in (torch_stylegan2.Generator(), torch_stylegan2.Discriminator())]
    return sizes(*nets), torch_stylegan2.Game(nets, x, average, compile).round
  if name in ("dcgan", "sngan"):
    nets = [place(net) for net in getattr(torch_nets, name)()]
    if name == "dcgan":
      rule = (nonsaturating, logistic), x, (batch, 100, 1, 1), 1, 0.5
    else:
      rule = (lambda fake: -fake.mean(), hinge), x, (batch, 128), 5, 0.0
    return sizes(*nets), Two(nets, *rule, compile).round
  return one(name, x, place, compile)


def one(name, x, place, compile):
  """The same of cases that have one net."""
  kind = name.partition("_")[0]
  net = place({"unet": torch_nets.UNet, "dit": torch_nets.DiT, "vae": torch_nets.VAE}[kind]())
  if name in ("unet_forward", "unet_ddim"):
    forward = torch.inference_mode()(compile(net.eval()))
    t = torch.zeros(len(x))
    take = (lambda: forward(x, t)) if name == "unet_forward" else (lambda: ddim(forward, x))
    return sizes(net), take
  loss, clip = (vae, 100.0) if kind == "vae" else (edm, 1.0)
  return sizes(net), One(net, compile(loss), x, clip).round


def sizes(*nets):
  """Parameters of each."""
  return [sum(p.numel() for p in net.parameters()) for net in nets]


def main() -> None:
  """Takes rounds as it is told to."""
  name, batch, threads, way = sys.argv[1:]
  torch.set_num_threads(int(threads))
  answer(*case(name, int(batch), way))


if __name__ == "__main__":
  main()
