"""Is this training healthy? Scalars in, plain warnings out, nothing else.

`check` is a pure function of what it remembered and one row of the log, so a
resumed run and the report get the same warnings by replaying the log.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

WINDOW = 5  # rows of the log that a warning looks at: one odd batch is none
EARLY = 10  # rows that say what is normal
FEW = 3  # rows that are enough where each one costs a look at more data


class Health(NamedTuple):
  """What to remember between rows."""

  recent: dict[str, tuple[float, ...]] = {}  # the last WINDOW values by key
  early: dict[str, tuple[float, ...]] = {}  # the first EARLY of some keys
  active: dict[str, int] = {}  # raised and not cleared: rows since it held


class Finding(NamedTuple):
  """One warning: since which step, its name, and what to try."""

  step: int
  name: str
  text: str


def check(health: Health, step: int, scalars: Mapping[str, float]) -> tuple[Health, list[Finding]]:
  """Takes one row of scalars in -> what to remember, new warnings.

  A warning is raised once, and again only after it has cleared in between:
  after WINDOW rows in which it did not hold. Scalars that are
  absent or not finite say nothing.
  """
  recent, early = dict(health.recent), dict(health.early)
  for key in KEYS & scalars.keys():
    value = float(scalars[key])
    if math.isfinite(value):
      recent[key] = (*recent.get(key, ()), value)[-WINDOW:]
      if key in NORMAL and len(early.get(key, ())) < EARLY:
        early[key] = (*early.get(key, ()), value)
  health = Health(recent, early, health.active)
  texts = {name: rule(health) for name, rule in RULES.items()}
  texts = {name: text for name, text in texts.items() if text}
  new = [Finding(step, name, text) for name, text in texts.items() if name not in health.active]
  calm = {name: rows + 1 for name, rows in health.active.items()}
  active = {name: rows for name, rows in calm.items() if rows < WINDOW}
  return health._replace(active=active | dict.fromkeys(texts, 0)), new


def replay(rows: Iterable[Mapping[str, float]]) -> tuple[Health, list[Finding]]:
  """The same over a whole log, as `jaxgen.monitor.log.read_jsonl` gives it."""
  health, findings = Health(), []
  for row in rows:
    health, new = check(health, row["step"], row)
    findings += new
  return health, findings


def _typical(health: Health, key: str, rows: int = WINDOW) -> float | None:
  """The median of the last `rows` values; None until there are as many."""
  values = health.recent.get(key, ())[-rows:]
  return statistics.median(values) if len(values) == rows else None


def _normal(health: Health, key: str) -> float | None:
  """The median of the first EARLY values; None until there are as many."""
  values = health.early.get(key, ())
  return statistics.median(values) if len(values) == EARLY else None


def _saturated(health: Health) -> str | None:
  accuracy = _typical(health, "disc/accuracy")
  if accuracy is None or accuracy < 0.99:
    return None
  return (
    f"The discriminator is right {accuracy:.1%} of the time: the generator "
    "learns next to nothing from it. Try a lower discriminator learning rate, "
    "a stronger gradient penalty (r1), or augmentation if data are few."
  )


def _vanished(health: Health) -> str | None:
  norm = _typical(health, "gen/grad_norm")
  normal = _normal(health, "gen/grad_norm")
  if norm is None or normal is None or norm >= max(1e-6, 1e-3 * normal):
    return None
  return (
    f"The generator's gradient has vanished (norm {norm:.1e}, {normal:.1e} at "
    "the start). Try the non-saturating or the hinge loss, a lower "
    "discriminator learning rate, or an earlier checkpoint."
  )


def _collapsed(health: Health) -> str | None:
  ratio = _typical(health, "gen/diversity")
  if ratio is None or ratio >= 0.3:
    return None
  return (
    f"The generator loses diversity: its samples differ {ratio:.2f} times as "
    "much as real data do (mode collapse). Try a gradient penalty, a larger "
    "batch, a lower generator learning rate, or an earlier checkpoint."
  )


def _by_heart(health: Health) -> str | None:
  rank = _typical(health, "probe/rank", FEW)
  if rank is None or rank < 0.8:
    return None
  return (
    "The discriminator knows its training data by heart: it ranks them above "
    f"real data held back in {rank:.0%} of pairs (50% is even). Try more data, "
    "augmentation (adversarial.ada.ADA), a stronger r1, or an earlier "
    "checkpoint."
  )


def _narrow(health: Health) -> str | None:
  ratio = _typical(health, "probe/class_diversity_min", FEW)
  if ratio is None or ratio >= 0.2:
    return None
  return (
    "At least one class has lost its diversity: within it, samples spread "
    f"{ratio:.2f} times as much as real data do. Try a larger batch, a lower "
    "generator learning rate, or an earlier checkpoint."
  )


def _exploding(health: Health) -> str | None:
  for group, net in (("gen", "generator"), ("disc", "discriminator")):
    key = f"{group}/sigma_max"
    sigma, normal = _typical(health, key), _normal(health, key)
    if sigma is not None and normal is not None and sigma > 10 * normal:
      return (
        f"The {net}'s largest singular value explodes ({sigma:.1f}, "
        f"{normal:.1f} at the start), as it does before a collapse. Go back to "
        "an earlier checkpoint; try a lower learning rate, a stronger r1, or "
        "more steps of the discriminator."
      )
  return None


def _leaking(health: Health) -> str | None:
  p = _typical(health, "disc/p")
  if p is None or p < 0.8:
    return None
  return (
    f"Augmentation is at p = {p:.2f}: the discriminator overfits for all it "
    "does, and above 0.8 samples begin to look augmented. Data are too few for "
    "this model: try more of them (data.flip), a stronger r1, or smaller "
    "networks."
  )


def _few_codes(health: Health) -> str | None:
  for key in BOOKS:
    perplexity = _typical(health, key)
    if perplexity is not None and perplexity < 2:
      return (
        f"A codebook has collapsed: its perplexity is {perplexity:.2f}, so that nearly all latents "
        "have one code. Try to revive codes (config.model.revive), a lower learning rate, or a "
        "larger batch."
      )
  return None


def _skipping(health: Health) -> str | None:
  counts = health.recent.get("skips", (0,))
  if counts[-1] <= (counts[0] if len(counts) == WINDOW else 0):
    return None
  return (
    f"Updates were skipped for a loss or gradient that is not finite "
    f"({counts[-1]:.0f} so far). Try a lower learning rate, a longer warm-up, "
    "or gradient clipping."
  )


RULES = {
  "saturation": _saturated,
  "vanishing": _vanished,
  "collapse": _collapsed,
  "overfitting": _by_heart,
  "class_collapse": _narrow,
  "singular": _exploding,
  "leaking": _leaking,
  "codebook": _few_codes,
  "skips": _skipping,
}
BOOKS = ("net/perplexity", "net/perplexity_top", "net/perplexity_bottom")
NORMAL = {"gen/grad_norm", "gen/sigma_max", "disc/sigma_max"}
KEYS = NORMAL | {
  *BOOKS,
  "disc/accuracy",
  "disc/p",
  "gen/diversity",
  "probe/rank",
  "probe/class_diversity_min",
  "skips",
}
