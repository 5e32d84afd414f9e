"""Which clips a visitor rates: as many of every system, in an order by chance.

Absolute category rating, ITU-T P.800 (1996), annex B. Real recordings are one
more system, whose name nobody is told before the end.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.study import mos, sounds, study_page
from jaxgen.study.pairs import LIMIT, visitor_rng


class Rating(NamedTuple):
  """One question: a clip of a system, by its name below the folder."""

  system: str
  clip: str


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
  """All clips that visitors may be asked about.

  Attributes:
    folders: Where the clips of each system lie.
    names: Of clips, by system.
    rate: Samples a second at which all are played.
    seed: Decides with the visitor's name which clips are played, and when.
    asked: Rate of sample files that do not say theirs.
  """

  folders: Mapping[str, Path]
  names: Mapping[str, Sequence[str]]
  rate: int
  seed: int
  asked: int | None = None

  places = ("clip",)
  answers, between = tuple(sorted(mos.LABELS)), "to"

  @property
  def count(self) -> int:
    """How many clips a visitor could rate, as many of every system."""
    return len(self.names) * min(map(len, self.names.values()))

  @property
  def digest(self) -> str:
    """Sixteen hex digits that identify all names."""
    text = repr(sorted((k, list(v)) for k, v in self.names.items())).encode()
    return hashlib.sha256(text).hexdigest()[:16]

  def trials(self, visitor: str, num: int) -> list[Rating]:
    """The first `num` questions to a visitor, no clip twice.

    In rounds: in each every system comes once, in an order by chance.
    """
    rng = visitor_rng(self.seed, visitor)
    order = {system: rng.permutation(names) for system, names in sorted(self.names.items())}
    systems, questions = list(order), []
    for i in range(min(map(len, order.values()))):
      for k in rng.permutation(len(systems)):
        questions.append(Rating(systems[k], str(order[systems[k]][i])))
    return questions[:num]

  def files(self, question: Rating) -> dict[str, Path]:
    """What is to be played."""
    return {"clip": self.folders[question.system] / question.clip}

  def content(self, path: Path) -> tuple[str, bytes]:
    """Type and bytes of a file as visitors get it."""
    return "audio/wav", sounds.wav_of(path, self.rate, self.asked)

  def answer(self, question: Rating, choice: Any) -> dict[str, Any]:
    """What is recorded of a choice."""
    return {**question._asdict(), "rating": choice}

  def own_result(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a visitor is told at the end."""
    return {"rated": len(rows)}

  def page(self, num: int, seconds: float, nonce: str) -> str:
    return study_page.ratings(num, nonce)

  def result(self, rows: Sequence[Mapping[str, Any]], seconds: float, nonce: str) -> str:
    return study_page.opinions(mos.score(rows), nonce)


def find_systems(
  paths: Mapping[str, str], seed: int, rate: int | None, warn: sounds.Warn
) -> Ratings:
  """Reads the clips of a study; `warn` gets a line on what is left out.

  Args:
    paths: A folder or a sample file for each system, by name.
    seed: Draws the clips, where a system has more than LIMIT, and the trials.
    rate: Samples a second of sample files that do not say theirs.
    warn: Prints a line.

  Raises:
    UserError: There are no clips.
  """
  folders = {name: files.local(path) for name, path in paths.items()}
  common = sounds.common_rate(folders.values(), rate)
  rng, names = np.random.default_rng(seed), {}
  for system, top in sorted(folders.items()):
    every = sounds.names_in(top)
    some = [every[i] for i in sorted(rng.permutation(len(every))[:LIMIT])]
    names[system] = sounds.readable(top, some, common, warn)
    if not names[system]:
      raise UserError(f"{top}: none of the clips can be read")
  return Ratings(folders, names, common, seed, rate)
