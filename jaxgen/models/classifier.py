"""A classifier is a game of one player too: it judges, and it guides."""
import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import optax

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State


@dataclasses.dataclass(frozen=True)
class Classifier:
  """Learns p(y | x).

  Attributes:
    net: (x, key=) -> logits [B, classes]; method embed(x) -> features [B, D].
    smoothing: Share of probability spread over all labels in training.
  """
  net: nn.Module
  smoothing: float = 0.

  sampled = ("net",)  # the weights to judge with; there is no `sample`

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    variables = dict(self.net.init(key, batch["x"]))
    return {"net": variables.pop("params")}, {"net": variables}

  def loss(self, state: State, batch: Batch, key: Key
           ) -> tuple[Array, tuple[Groups, Metrics]]:
    """Cross-entropy in nats, and accuracy on the batch."""
    logits = self.net.apply(state.variables("net"), batch["x"], key=key)
    target = optax.smooth_labels(
        jnp.eye(logits.shape[-1])[batch["y"]], self.smoothing)
    loss = optax.softmax_cross_entropy(logits, target).mean()
    accuracy = jnp.mean(logits.argmax(-1) == batch["y"])
    return loss, (state.stats, {"accuracy": accuracy})

  def logits(self, state: State, batch: Batch) -> Array:
    """[B, classes]."""
    return self.net.apply(state.variables("net"), batch["x"])

  def embed(self, state: State, batch: Batch) -> Array:
    """Features [B, D] that judges compare."""
    return self.net.apply(state.variables("net"), batch["x"], method="embed")
