"""Vocoders that learn from discriminators: HiFi-GAN (Kong et al. 2020, Sec. 2)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State


@dataclasses.dataclass(frozen=True)
class VocoderGAN:
  """A generator of waveforms from spectrograms, against many discriminators.

  Nothing is drawn: a spectrogram has one waveform. As in jik876/hifi-gan the
  discriminators move first, on the same fakes, and losses are sums over them.

  Attributes:
    gen: mel [B, frames, mels] -> waveforms [B, frames * hop, 1].
    disc: x [B, L, 1] -> (logits, features): lists with [B, N] and a list of
      [B, ...] for each discriminator.
    cond: {"mel": clips [B, L, 1] -> spectrograms}, the condition.
    ear: Waveforms [B, L] -> spectrograms that the two are to share; of all
      frequencies, where those of `cond` are cut off.
    mel_weight: Of the distance between these (Eq. 7).
    feature_weight: Of the distance between features (Eq. 7).
  """

  gen: nn.Module
  disc: nn.Module
  cond: Mapping[str, Callable]
  ear: Callable[[Array], Array]
  mel_weight: float = 45.0
  feature_weight: float = 2.0

  sampled = ("gen",)
  classes = 0

  @property
  def players(self) -> Sequence[Player]:
    """Discriminators, generator."""
    return Player("disc", "disc", self.disc_loss), Player("gen", "gen", self.gen_loss)

  @property
  def knobs(self) -> dict[str, float]:
    """None."""
    return {}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    k_gen, k_disc = jax.random.split(key)
    gen = dict(self.gen.init(k_gen, self.mel(batch)))
    disc = dict(self.disc.init(k_disc, batch["x"]))
    params = {"gen": gen.pop("params"), "disc": disc.pop("params")}
    return params, {"gen": gen, "disc": disc}

  def mel(self, batch: Batch) -> Array:
    """The spectrograms of a batch: its own, or those of its clips."""
    return batch["mel"] if "mel" in batch else self.cond["mel"](batch["x"])

  def disc_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Least squares: real is to be 1 and fake 0 (Eqs. 1, 5)."""
    fake = self.sample(state, batch, key)
    (on_real, _), stats = self.discriminate(state, batch["x"])
    (on_fake, _), stats = self.discriminate(state.replace(stats=stats), fake)
    square = lambda logits, want: sum(jnp.mean((x - want) ** 2) for x in logits)
    info = {"real": average(on_real), "fake": average(on_fake)}
    return square(on_real, 1.0) + square(on_fake, 0.0), (stats, info)

  def gen_loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """How badly they are fooled, and how far features and spectrograms are off (Eq. 6)."""
    x, fake = batch["x"], self.sample(state, batch, key)
    (_, of_real), _ = self.discriminate(state, x)
    (on_fake, of_fake), _ = self.discriminate(state, fake)
    info = {
      "fooled": sum(jnp.mean((x - 1) ** 2) for x in on_fake),
      "features": sum(map(apart, jax.tree.leaves(of_real), jax.tree.leaves(of_fake))),
      "mel": apart(self.ear(x[..., 0]), self.ear(fake[..., 0])),
    }
    loss = info["fooled"] + self.feature_weight * info["features"] + self.mel_weight * info["mel"]
    return loss, (state.stats, info)

  def discriminate(self, state: State, x: Array) -> tuple[Any, Groups]:
    """(logits, features) as in training, stats."""
    moving = list(state.stats["disc"])
    out, stats = self.disc.apply(state.variables("disc"), x, mutable=moving)
    return out, state.stats | {"disc": dict(stats)}

  def sample(self, state: State, batch: Batch, key: Key) -> Array:
    """Spectrograms, or those of "x" -> waveforms as long as x; keys are not read."""
    del key
    return self.gen.apply(state.variables("gen"), self.mel(batch))[:, : batch["x"].shape[1]]

  def nfe(self, **knobs) -> int:
    """One pass of the generator."""
    del knobs
    return 1


def apart(a: Array, b: Array) -> Array:
  """The mean absolute difference."""
  return jnp.mean(jnp.abs(a - b))


def average(logits: Sequence[Array]) -> Array:
  """Of all discriminators' logits, each counting alike."""
  return sum(map(jnp.mean, logits)) / len(logits)
