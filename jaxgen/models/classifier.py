"""A classifier is a game of one player too: it judges, and it guides."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.diffusion.process import Noise
from jaxgen.keys import fold, normal

CLEAN = 12.0  # logsnr, sigma / alpha = 0.0025: a byte's rounding is as large


@dataclasses.dataclass(frozen=True)
class Classifier:
  """Learns p(y | x), or with a process p(y | x_t) at all t.

  The latter guides diffusion models: Dhariwal & Nichol 2021, Sec. 4. Process,
  precond and draw_t are as in models.diffusion.Diffusion.

  Attributes:
    net: (x, key=) -> logits [B, classes]; method embed(x) -> features [B, D].
      With a process: (c_in x_t, c_noise [B], key=), and embed(x, c_noise).
    smoothing: Share of probability spread over all labels in training.
    process: t -> Noise(t, alpha, sigma); None: there is no noise.
    precond: Noise -> c_skip, c_out, c_in, c_noise.
    draw_t: (key [B], ndim) -> t [B, 1, .., 1] to train at.
  """

  net: nn.Module
  smoothing: float = 0.0
  process: Callable | None = None
  precond: Callable | None = None
  draw_t: Callable | None = None

  sampled = ("net",)  # the weights to judge with; there is no `sample`

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    x = batch["x"]
    level = (jnp.zeros(len(x)),) if self.process else ()
    variables = dict(self.net.init(key, x, *level))
    return {"net": variables.pop("params")}, {"net": variables}

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Cross-entropy in nats, and accuracy on the batch."""
    x, y = batch["x"], batch["y"]
    if self.process:
      t = self.process(self.draw_t(fold(key, 0), x.ndim))
      x_t = t.alpha * x + t.sigma * normal(fold(key, 1), x.shape[1:])
      logits = self.noisy_logits(state, x_t, t, fold(key, 2))
    else:
      logits = self.net.apply(state.variables("net"), x, key=key)
    target = optax.smooth_labels(jnp.eye(logits.shape[-1])[y], self.smoothing)
    loss = optax.softmax_cross_entropy(logits, target).mean()
    right = logits.argmax(-1) == y
    metrics = {"accuracy": jnp.mean(right)}
    if self.process:
      right = right[jnp.argsort(t.t.ravel())]
      part = max(len(x) // 4, 1)
      metrics["accuracy_low_noise"] = jnp.mean(right[:part])
      metrics["accuracy_high_noise"] = jnp.mean(right[-part:])
    return loss, (state.stats, metrics)

  def noisy_logits(
    self, state: State, x_t: Array, t: Noise, key: Key | None = None, method: str | None = None
  ) -> Array:
    """Logits [B, classes] at a noise level, float32; or another method's."""
    _, _, c_in, c_noise = self.precond(t)
    c_noise = jnp.broadcast_to(jnp.ravel(c_noise), (len(x_t),))
    kw = {} if key is None else {"key": key}
    out = self.net.apply(state.variables("net"), c_in * x_t, c_noise, method=method, **kw)
    return out.astype(jnp.float32)

  def gradient(self, state: State, y: Array) -> Callable[[Array, Noise], Array]:
    """(x_t, t) -> d log p(y | x_t) / d x_t, shaped like x_t.

    At x_t itself, as in ADM's code: Dhariwal & Nichol 2021, Alg. 1, has it at
    the mean of the step. Labels of -1 push nowhere.
    """

    def log_p(x_t: Array, t: Noise) -> Array:
      log_p = jax.nn.log_softmax(self.noisy_logits(state, x_t, t))
      mine = jnp.take_along_axis(log_p, jnp.maximum(y, 0)[:, None], 1)[:, 0]
      return jnp.sum(jnp.where(y < 0, 0.0, mine))

    return jax.grad(log_p)

  def logits(self, state: State, batch: Batch) -> Array:
    """Of clean x, [B, classes]."""
    return self._clean(state, batch)

  def embed(self, state: State, batch: Batch) -> Array:
    """Features [B, D] that judges compare."""
    return self._clean(state, batch, "embed")

  def _clean(self, state, batch, method=None):
    x = batch["x"]
    if not self.process:
      return self.net.apply(state.variables("net"), x, method=method)
    t = self.process(self.process.inverse(CLEAN))
    return self.noisy_logits(state, t.alpha * x, t, method=method)
