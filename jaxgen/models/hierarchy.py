"""Priors of codes of two levels: p(top | y) p(bottom | top, y).

VQ-VAE-2's second stage (Razavi et al. 2019, Sec. 3.2, Alg. 2), over a
`models.vqvae.VQVAE2` that `models.latent.Latent` holds.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.errors import UserError
from jaxgen.keys import fold
from jaxgen.models.autoregressive import Autoregressive
from jaxgen.models.vqvae import LEVELS, Codes


@dataclasses.dataclass(frozen=True)
class Hierarchy:
  """Two autoregressive models, the second told what the first one drew.

  Each is a player with a group of its name; they learn from the same batches
  side by side, and neither sees the other. batch["x"] holds the codes of both
  levels. Knobs are those of the levels, as `temperature_top`; `temperature`
  alone means both.

  Attributes:
    top: Of the smaller map, which reads labels at most.
    bottom: Of the larger map; its net reads the smaller one (`cond_blocks`).
  """

  top: Autoregressive
  bottom: Autoregressive

  sampled = LEVELS

  def __post_init__(self):
    if self.top.cond or not self.bottom.cond:
      raise UserError(
        "config.model: the top level reads no other (net.cond_blocks=0), and the bottom level "
        "reads the top (net.cond_blocks of 1 and more)"
      )
    if self.top.classes != self.bottom.classes:
      raise UserError(
        f"config.model: top.classes={self.top.classes}, but bottom.classes={self.bottom.classes}: "
        "make them equal"
      )

  @property
  def classes(self) -> int:
    """Number of labels that both take; 0 for none."""
    return self.top.classes

  @property
  def players(self) -> Sequence[Player]:
    """One for each level."""
    return tuple(Player(level, level, functools.partial(self.loss, level)) for level in LEVELS)

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` and `top_k` of each level, see `Autoregressive.knobs`."""
    return {f"{k}_{level}": v for level in LEVELS for k, v in self.at(level).knobs.items()}

  def expand(self, knobs: Mapping[str, float]) -> dict[str, float]:
    """`top_k` means that of both levels; `top_k_bottom` goes before."""
    both = {f"{k}_{level}": v for k, v in knobs.items() for level in LEVELS if k in self.top.knobs}
    return both | {k: v for k, v in knobs.items() if k not in self.top.knobs}

  def at(self, level: str) -> Autoregressive:
    """The model of a level."""
    return {"top": self.top, "bottom": self.bottom}[level]

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params by level; there are no stats."""
    params = {}
    for level, k in zip(LEVELS, jax.random.split(key), strict=True):
      params[level] = self.at(level).init(of_level(batch, level), k)[0]["net"]
    return params, {}

  def loss(
    self, level: str, state: State, batch: Batch, key: Key
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """Nats for a code of a level; keys [B]."""
    model, key = self.at(level), fold(key, LEVELS.index(level))
    loss, (_, info) = model.loss(level_state(state, level), of_level(batch, level), key)
    return loss, (state.stats, info)

  def bits_per_dim(self, state: State, batch: Batch) -> dict[str, Array]:
    """-log2 p of the codes of each level over their number, exactly, [B] each."""
    return {
      level: self.at(level).bits_per_dim(level_state(state, level), of_level(batch, level))
      for level in LEVELS
    }

  def sample(self, state: State, batch: Batch, key: Key, **knobs: Array | float) -> Codes:
    """Keys [B] -> codes of both levels, shaped and conditioned like `batch`."""
    knobs, codes = self.knobs | self.expand(knobs), dict(batch["x"])
    for i, level in enumerate(LEVELS):
      model, own = self.at(level), of_level(batch | {"x": codes}, level)
      turned = {k: knobs[f"{k}_{level}"] for k in model.knobs}
      codes[level] = model.sample(level_state(state, level), own, fold(key, i), **turned)
    return codes

  def nfe(self, **knobs) -> int:
    """As many as there are codes of both levels."""
    return sum(self.at(level).nfe() for level in LEVELS)


def of_level(batch: Batch, level: str) -> Batch:
  """The batch as the model of a level sees it."""
  top = {"top": batch["x"]["top"]} if level == "bottom" else {}
  return batch | {"x": batch["x"][level]} | top


def level_state(state: State, level: str) -> State:
  """The part of a state that a level has, under the name of a model of one net."""
  return state.replace(params={"net": state.params[level]}, stats={})
