"""VQ-VAE-2 (Razavi et al. 2019): codes of two levels, which follow the data."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import fold
from jaxgen.models import codebook

LEVELS = ("top", "bottom")  # published: an eighth and a quarter of the image's height
Codes = dict[str, Array]  # int32 [B, h, w] for each level


@dataclasses.dataclass(frozen=True)
class VQVAE2:
  """Images as two maps of codes, for a prior to learn.

  Codebooks are statistics, not weights: they are averages of the latents that
  chose them, see `codebook.follow`. An image is quantised by the codes before
  its step. Where a batch is differentiated in parts, every part moves them.

  Attributes:
    net: Methods look, look_again, decode and encode, see
      `nets.vqvae2.TwoLevels`.
    codes: Number of codes of each level.
    commitment: Weight of the distance of latents from their codes (Eq. 2).
    decay: Of a code's averages.
    count: How often each code begins as if chosen. By the published code never,
      and what no latent chose in the first step then ends a hundred thousand
      away, for good; 1 keeps it where it is.
    revive: A code with a smaller count begins again at a latent of the batch; 0:
      none does, as published. With `count` 0 all begin so, in the first step.
  """

  net: nn.Module
  codes: int = 512
  commitment: float = 0.25
  decay: float = 0.99
  count: float = 0.0
  revive: float = 0.0

  sampled = ("net",)
  wants_prior = True

  @property
  def players(self) -> Sequence[Player]:
    """One: encoder and decoder together."""
    return (Player("net", "net", self.loss),)

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` of the draw of codes."""
    return {"temperature": 1.0}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats; the codebooks are `stats["net"]["codes"]`."""
    k_net, *k_levels = jax.random.split(key, 1 + len(LEVELS))
    params = self.net.init(k_net, batch["x"])["params"]
    books = {
      level: codebook.begin(k, self.codes, self.net.dim, self.count)
      for level, k in zip(LEVELS, k_levels, strict=True)
    }
    return {"net": params}, {"net": {"codes": books}}

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Mean squared error, and that of latents to their codes (Eq. 2)."""
    x, books, gaps, info = batch["x"], dict(self.books(state)), [], {}

    def quantise(level: str, z: Array) -> Array:
      book = books[level]
      index = codebook.nearest(z, book["codes"])
      code = book["codes"][index]
      gaps.append(jnp.mean((code - z) ** 2))
      new = codebook.follow(book, z, index, self.decay)
      use = codebook.use(codebook.occupancy(index, self.codes))
      if self.revive:
        # The first example's key, which is the same however a batch is cut.
        own = jax.random.fold_in(key[0], LEVELS.index(level))
        new, use["revived"] = codebook.revive(new, z, own, self.revive)
      books[level] = new
      info.update({f"{name}_{level}": value for name, value in use.items()})
      return codebook.straight_through(z, code)

    variables = state.variables("net")
    codes = self.net.apply(variables, x, quantise, method="encode")
    recon = jnp.mean((self.net.apply(variables, *codes, method="decode") - x) ** 2)
    latent = sum(gaps)
    info |= {"recon": recon, "latent": latent}
    stats = state.stats | {"net": state.stats["net"] | {"codes": books}}
    return recon + self.commitment * latent, (stats, info)

  def books(self, state: State) -> dict[str, codebook.Book]:
    """The codebooks of both levels."""
    return state.stats["net"]["codes"]

  def encode(self, state: State, x: Array, key: Key | None = None, y: Array | None = None) -> Codes:
    """Images -> codes of both levels; nothing is drawn, and no label read."""
    del key, y
    index = {}

    def quantise(level: str, z: Array) -> Array:
      codes = self.books(state)[level]["codes"]
      index[level] = codebook.nearest(z, codes)
      return codes[index[level]]

    self.net.apply(state.variables("net"), x, quantise, method="encode")
    return index

  def decode(self, state: State, z: Codes, y: Array | None = None) -> Array:
    """Codes of both levels -> images."""
    del y
    codes = (self.books(state)[level]["codes"][z[level]] for level in LEVELS)
    return self.net.apply(state.variables("net"), *codes, method="decode")

  def occupancy(self, state: State, z: Codes) -> dict[str, Array]:
    """How often each code was chosen, [K] for each level."""
    del state
    return {level: codebook.occupancy(z[level], self.codes) for level in LEVELS}

  def sample(
    self, state: State, batch: Batch, key: Key, *, temperature: Array | float = 1.0
  ) -> Array:
    """Keys [B] -> x, of codes drawn one by one, each as often as it is chosen.

    Textures at best: images want a prior, a model of how codes go together.
    """
    height, width = batch["x"].shape[1:3]
    z = {}
    for i, level in enumerate(LEVELS):
      f = 2 ** (self.net.halvings + 1 - i)
      shape = (height // f, width // f)
      weights = jnp.maximum(self.books(state)[level]["count"], 1e-10) ** (1 / temperature)
      z[level] = codebook.prior(fold(key, i), shape, weights)
    return self.decode(state, z)

  def nfe(self, **knobs) -> int:
    """One pass of the decoder."""
    del knobs
    return 1
