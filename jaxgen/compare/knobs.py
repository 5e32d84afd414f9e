"""From the words of flags to numbers, steps and metrics, for verbs that turn knobs."""

from collections.abc import Iterable, Sequence

from jaxgen.core import Model
from jaxgen.errors import UserError, nearest

UNGUIDED = {"guidance": 1.0, "scale": 0.0}


def numbers(flag: str, words: Sequence[str]) -> list[float]:
  """UserError for a word that is no number."""
  try:
    return [float(w) for w in words]
  except ValueError:
    raise UserError(f"--{flag}={','.join(words)}: want numbers") from None


def most_steps(model: Model, nfe: float) -> float | None:
  """The most steps that evaluate the network `nfe` times, unguided, at the most.

  None where a single step takes more.
  """
  unguided = {k: v for k, v in UNGUIDED.items() if k in model.knobs}
  fits = (s for s in range(int(nfe), 0, -1) if model.nfe(**unguided | {"steps": s}) <= nfe)
  return next(map(float, fits), None)


def choose_metrics(names: Sequence[str], metrics: Iterable[str]) -> list[str]:
  """Metrics by name, or by the part of it before "@"; none by default."""
  metrics = list(metrics)
  chosen = []
  for name in names:
    metric = next((m for m in metrics if name in (m, m.partition("@")[0])), None)
    if metric is None:
      raise UserError(f"--metrics={name}: there is no such metric here" + nearest(name, metrics))
    chosen.append(metric)
  return chosen
