"""Autoregressive models of codes: each code by all codes before it.

A prior of a codec such as VQ-VAE-2: p(x) = prod p(x_i | x_<i), exactly (Razavi
et al. 2019, Sec. 3.2; Chen et al. 2018, Eq. 1). Codes are int32 [B, h, w] in
batch["x"], never bytes, which the house takes for images; those of the level
above, where the net reads them, are batch["top"]: what a codec's `encode` gave.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.keys import fold

At = tuple[Array, Array | None]  # row and column, [] each; None: a row begins
COLDEST = 1e-6  # temperature; below it, and at 0, the likeliest code is taken


@dataclasses.dataclass(frozen=True)
class Autoregressive:
  """p(codes), p(codes | y) or p(codes | top, y).

  Attributes:
    net: `nets.pixelsnail.PixelSNAIL`, whose `labels` and `cond_blocks` say what
      it is told.
    classes: Number of labels that the net takes; 0 for none.
  """

  net: nn.Module
  classes: int = 0

  sampled = ("net",)

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  @property
  def knobs(self) -> dict[str, float]:
    """`temperature` divides logits; `top_k` likeliest codes are drawn, 0: of all."""
    return {"temperature": 1.0, "top_k": 0.0}

  @property
  def cond(self) -> dict[str, None]:
    """The codes of the level above, where the net reads them."""
    return {"top": None} if self.net.cond_blocks else {}

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    variables = self.net.init(key, as_codes(batch["x"]), **self.conditions(batch))
    return {"net": variables["params"]}, {}

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """Nats for a code: the exact -ln p(x) over their number."""
    logits = self.logits(state, batch, fold(key, 0))
    loss = jnp.mean(nats(logits, as_codes(batch["x"])))
    right = jnp.mean(logits.argmax(-1) == as_codes(batch["x"]))
    return loss, (state.stats, {"bits_per_dim": loss / jnp.log(2), "accuracy": right})

  def logits(self, state: State, batch: Batch, key: Key | None = None) -> Array:
    """Of all codes, each by those before it, [B, h, w, K]; keys [B]: dropout."""
    x = as_codes(batch["x"])
    return self.net.apply(state.variables("net"), x, **self.conditions(batch), key=key)

  def bits_per_dim(self, state: State, batch: Batch) -> Array:
    """-log2 p(x) over the number of codes, exactly, [B].

    It is of codes, not of pixels: what the codec loses is not in it.
    """
    bits = nats(self.logits(state, batch), as_codes(batch["x"])) / jnp.log(2)
    return jnp.mean(bits, (1, 2))

  def sample(
    self,
    state: State,
    batch: Batch,
    key: Key,
    *,
    temperature: Array | float = 1.0,
    top_k: Array | float = 0.0,
  ) -> Array:
    """Keys [B] -> codes int32, shaped and conditioned like `batch`."""
    width = self.net.shape[1]

    def pick(logits: Array, at: At, _: None) -> tuple[Array, None]:
      u = jax.vmap(jax.random.uniform)(fold(key, at[0] * width + at[1]))
      return draw(logits, u, temperature, top_k), None

    weights, n = state.variables("net"), len(batch["x"])
    return walk(self.net, weights, n, pick, None, **self.conditions(batch))[0]

  def nfe(self, **knobs) -> int:
    """As many as there are codes; together they cost about one whole pass."""
    del knobs
    return self.net.shape[0] * self.net.shape[1]

  def conditions(self, batch: Batch) -> dict[str, Array]:
    """The label and the codes above, where the net takes them."""
    y = {"y": batch["y"]} if self.classes else {}
    return y | {name: as_codes(batch[name]) for name in self.cond}


def as_codes(x: Array) -> Array:
  """Whole numbers as int32; ValueError for floats, as which bytes arrive."""
  if jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"codes are {x.dtype}: want int32 (bytes are taken for images)")
  return x.astype(jnp.int32)


def nats(logits: Array, codes: Array) -> Array:
  """-ln p of each code, of logits [.., K]."""
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.take_along_axis(log_p, codes[..., None], -1)[..., 0]


def draw(logits: Array, u: Array, temperature: Array | float, top_k: Array | float) -> Array:
  """Codes of logits [B, K] by uniform numbers u [B], int32 [B].

  The first code up to which probabilities add up to more than u. One of
  probability zero is never drawn.
  """
  K = logits.shape[-1]
  k = jnp.asarray(top_k, jnp.int32)
  least = jnp.take(jnp.sort(logits), K - jnp.where(k < 1, K, jnp.minimum(k, K)), -1)
  logits = jnp.where(logits < least[:, None], -jnp.inf, logits)
  total = jnp.cumsum(jax.nn.softmax(logits / jnp.maximum(temperature, COLDEST)), -1)
  before = jnp.sum(total <= u[:, None] * total[:, -1:], -1)
  return jnp.minimum(before, K - 1).astype(jnp.int32)


def walk(
  net: nn.Module,
  variables: dict[str, Any],
  n: int,
  pick: Callable[[Array, At, Any], tuple[Array, Any]],
  carry: Any,
  **conditions: Array,
) -> tuple[Array, Any]:
  """n maps of codes, one code after the other, in one compiled loop.

  When a row begins, each convolution of the net takes in the rows above as a
  whole, once. For a pixel there remains what is to its left: of a 5 x 5 kernel
  2 taps in 25. Attention remembers keys and values. Of the published sizes, by
  counting: 161 GFLOP for 32 x 32 codes, as much as one pass over the map, and
  624 GFLOP for 64 x 64, 0.94 passes; without memory it is a pass for each code,
  1,023 and 4,351 times as much. What is remembered: 11 and 14 MiB a map.

  Args:
    net: See `nets.pixelsnail.PixelSNAIL`, or what takes `at` as it does.
    variables: Of the net.
    n: How many maps.
    pick: (logits [n, K], place, carry) -> codes int32 [n], carry.
    carry: Any pytree.
    **conditions: Of the net, y and top.

  Returns: int32 [n, h, w], and the last carry.
  """
  height, width = net.shape
  codes = jnp.zeros((n, height, width), jnp.int32)
  start = (jnp.int32(0), None)
  _, memory = net.apply(variables, codes, at=start, mutable=["fixed", "cache"], **conditions)
  variables = dict(variables) | {"fixed": memory["fixed"]}

  def look(codes: Array, cache: Groups, at: At) -> tuple[Array, Groups]:
    weights = variables | {"cache": cache}
    logits, new = net.apply(weights, codes, at=at, mutable=["cache"], **conditions)
    return logits, new["cache"]

  def row(i, state):
    codes, cache, carry = state
    _, cache = look(codes, cache, (i, None))
    return jax.lax.fori_loop(0, width, lambda j, s: pixel((i, j), *s), (codes, cache, carry))

  def pixel(at, codes, cache, carry):
    logits, cache = look(codes, cache, at)
    code, carry = pick(logits[:, 0, 0], at, carry)
    return codes.at[:, at[0], at[1]].set(code), cache, carry

  codes, _, carry = jax.lax.fori_loop(0, height, row, (codes, memory["cache"], carry))
  return codes, carry
