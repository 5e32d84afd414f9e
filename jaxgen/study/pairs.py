"""Which images or clips a visitor gets: one real and one fake.

Images of a pair are of the same size. Clips are played at the same rate.
"""

import dataclasses
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxgen import files
from jaxgen.data.folder import listing
from jaxgen.data.image import reason, upright
from jaxgen.errors import UserError
from jaxgen.study import sounds, study_page
from jaxgen.study.score import score

LIMIT = 1000  # images of a folder that are used, drawn by the seed
PAIRINGS = ("auto", "name", "random")

# By kind: "real", "fake" and maybe "low".
Folders = dict[str, Path]
Stems = dict[str, dict[str, str]]  # names without a suffix -> names
Names = dict[str, list[str]]
Sizes = dict[str, dict[str, tuple[int, int]]]  # names -> (width, height)
Warn = Callable[[str], None]


class Trial(NamedTuple):
  """One question. Names are below the folders; `left` is "real" or "fake"."""

  real: str
  fake: str
  low: str | None
  left: str


class Pool(NamedTuple):
  """Images that may be shown side by side: any real with any fake."""

  real: list[str]
  fake: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """All pairs that visitors may be asked about.

  Attributes:
    folders: Where images of each kind lie.
    pools: One for each pair of the same name, or for each size.
    lows: The small input of each fake image, {fake: low}.
    matched: Whether a pair shows the same scene.
    seed: Decides with the visitor's name which pairs are shown, and how.
    rate: Samples a second of clips; 0: of images.
    asked: Rate of sample files that do not say theirs.
  """

  folders: Folders
  pools: list[Pool]
  lows: dict[str, str]
  matched: bool
  seed: int
  rate: int = 0
  asked: int | None = None

  answers, between = ("left", "right"), "or"

  @property
  def places(self) -> tuple[str, ...]:
    """Where clips are, that have to be played."""
    return ("left", "right") if self.rate else ()

  @property
  def count(self) -> int:
    """How many pairs a visitor could see, no image twice."""
    return sum(min(map(len, pool)) for pool in self.pools)

  @property
  def digest(self) -> str:
    """Sixteen hex digits that identify all names and how they may be paired."""
    text = repr((self.pools, sorted(self.lows.items()))).encode()
    return hashlib.sha256(text).hexdigest()[:16]

  def trials(self, visitor: str, num: int) -> list[Trial]:
    """The first `num` questions to a visitor."""
    rng = visitor_rng(self.seed, visitor)
    pairs = [
      (str(real), str(fake))
      for pool in self.pools
      for real, fake in zip(rng.permutation(pool.real), rng.permutation(pool.fake), strict=False)
    ]
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:num]]
    sides = rng.integers(2, size=len(chosen))
    return [
      Trial(real, fake, self.lows.get(fake), ("real", "fake")[side])
      for (real, fake), side in zip(chosen, sides, strict=True)
    ]

  def files(self, question: Trial) -> dict[str, Path]:
    """What is to be shown or played, by its place on the page."""
    kinds = {"left": question.left, "right": "fake" if question.left == "real" else "real"}
    kinds |= {"low": "low"} if question.low else {}
    return {place: self.folders[k] / question._asdict()[k] for place, k in kinds.items()}

  def content(self, path: Path) -> tuple[str, bytes]:
    """Type and bytes of a file as visitors get it."""
    if self.rate:
      return "audio/wav", sounds.wav_of(path, self.rate, self.asked)
    return "image/png", png(path)

  def answer(self, question: Trial, choice: Any) -> dict[str, Any]:
    """What is recorded of a choice."""
    fooled = (choice == "left") == (question.left == "fake")
    return {**question._asdict(), "choice": choice, "fooled": fooled}

  def own_result(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a visitor is told at the end."""
    return {"fooled": sum(row["fooled"] for row in rows)}

  def page(self, num: int, seconds: float, nonce: str) -> str:
    if self.rate:
      return study_page.clip_questions(num, self.matched, nonce)
    return study_page.questions(num, seconds, self.matched, bool(self.lows), nonce)

  def result(self, rows: Sequence[Mapping[str, Any]], seconds: float, nonce: str) -> str:
    return study_page.result(score(rows), None if self.rate else seconds, nonce)


def visitor_rng(seed: int, visitor: str) -> np.random.Generator:
  """What draws for a visitor, always the same."""
  words = hashlib.sha256(f"{seed}/{visitor}".encode()).digest()
  return np.random.default_rng(np.frombuffer(words, np.uint32))


def find_pairs(paths: Mapping[str, str | None], pairing: str, seed: int, warn: Warn) -> Pairs:
  """Reads the folders of a study; `warn` gets a line on what is left out.

  Args:
    paths: Folders of photographs, "real", of a model's images, "fake", and
      maybe of its inputs, "low", by the names of the images.
    pairing: "name": images of one name are one scene; "random": they are not;
      "auto": names count if most of them are common to both folders.
    seed: Draws the images, where there are more than LIMIT, and the trials.

  Raises:
    UserError: No images, no names or no size in common.
  """
  if pairing not in PAIRINGS:
    raise UserError(f"--pairing={pairing}: want {', '.join(PAIRINGS)}")
  folders = {kind: files.local(path) for kind, path in paths.items() if path}
  for kind, top in folders.items():
    if not top.is_dir():
      raise UserError(f"--{kind}={top}: there is no such folder")
  stems = {
    kind: {name.rpartition(".")[0]: name for name in reversed(listing(top))}
    for kind, top in folders.items()
  }
  matched = match(stems, folders, pairing)
  lows = inputs(stems, folders)
  names = candidates(stems, matched, lows, np.random.default_rng(seed))
  sizes = {kind: image_sizes(folders[kind], names[kind], warn) for kind in names}
  if lows:
    readable = image_sizes(folders["low"], [lows[name] for name in sizes["fake"]], warn)
    sizes["fake"] = {name: s for name, s in sizes["fake"].items() if lows[name] in readable}
    lows = {name: lows[name] for name in sizes["fake"]}
  pools = pools_by_name(names, sizes, warn) if matched else pools_by_size(sizes, warn)
  if not pools:
    shown = {
      kind: " ".join(sorted({f"{w}x{h}" for w, h in of.values()})[:3]) or "broken images"
      for kind, of in sizes.items()
    }
    raise UserError(
      f"no pair has one size: {paths['real']} holds {shown['real']}, {paths['fake']} "
      f"{shown['fake']}; bring them to the same size"
    )
  return Pairs(folders, pools, lows, matched, seed)


def find_clip_pairs(
  paths: Mapping[str, str], pairing: str, seed: int, rate: int | None, warn: Warn
) -> Pairs:
  """Likewise of clips: folders of recordings, or sample files.

  Args:
    paths: Of "real" and "fake".
    pairing: As in `find_pairs`.
    seed: Likewise.
    rate: Samples a second of sample files that do not say theirs.
    warn: Prints a line.

  Raises:
    UserError: No clips, or no names in common.
  """
  if pairing not in PAIRINGS:
    raise UserError(f"--pairing={pairing}: want {', '.join(PAIRINGS)}")
  folders = {kind: files.local(path) for kind, path in paths.items()}
  common = sounds.common_rate(folders.values(), rate)
  stems = {
    kind: {name.rpartition(".")[0] or name: name for name in reversed(sounds.names_in(top))}
    for kind, top in folders.items()
  }
  # Rows of sample files have numbers, which say nothing.
  numbered = pairing == "auto" and any(map(sounds.is_file, folders.values()))
  matched = not numbered and match(stems, folders, pairing)
  names = candidates(stems, matched, {}, np.random.default_rng(seed))
  good = {kind: sounds.readable(folders[kind], names[kind], common, warn) for kind in names}
  if matched:
    both = zip(names["real"], names["fake"], strict=True)
    pools = [Pool([r], [f]) for r, f in both if r in good["real"] and f in good["fake"]]
  else:
    pools = [Pool(**good)] if all(good.values()) else []
  if not pools:
    raise UserError(f"no pair of clips of {paths['real']} and {paths['fake']} can be read")
  return Pairs(folders, pools, {}, matched, seed, common, rate)


def match(stems: Stems, folders: Folders, pairing: str) -> bool:
  """Whether images of one name, whatever its suffix, are one scene."""
  common = stems["real"].keys() & stems["fake"].keys()
  fewer = min(len(stems["real"]), len(stems["fake"]))
  matched = pairing == "name" or (pairing == "auto" and 2 * len(common) > fewer)
  if matched and not common:
    raise UserError(
      f"{folders['real']} and {folders['fake']} have no names "
      "in common: --pairing=random pairs at random"
    )
  return matched


def inputs(stems: Stems, folders: Folders) -> dict[str, str]:
  """{fake: low}, as far as there are small inputs; {} without their folder."""
  low = stems.get("low", {})
  lows = {name: low[stem] for stem, name in stems["fake"].items() if stem in low}
  if low and not lows:
    raise UserError(f"{folders['low']} has none of the names of {folders['fake']}")
  return lows


def candidates(
  stems: Stems, matched: bool, lows: dict[str, str], rng: np.random.Generator
) -> Names:
  """At most LIMIT names of a kind; those at one place are a pair if matched."""

  def draw(items: Sequence[str]) -> list[str]:
    return [items[i] for i in sorted(rng.permutation(len(items))[:LIMIT])]

  real = stems["real"]
  fake = {stem: name for stem, name in stems["fake"].items() if not lows or name in lows}
  if matched:
    common = draw(sorted(real.keys() & fake.keys()))
    return {"real": [real[stem] for stem in common], "fake": [fake[stem] for stem in common]}
  return {"real": draw(sorted(real.values())), "fake": draw(sorted(fake.values()))}


def image_sizes(top: Path, names: Sequence[str], warn: Warn) -> dict[str, tuple[int, int]]:
  """Width and height of each image that can be read; warns of the others."""

  def size(name):
    try:
      return upright(top / name, 3).size
    except Exception as e:  # a broken file may fail anywhere in a decoder
      return reason(e)

  with ThreadPoolExecutor(4) as pool:
    results = dict(zip(names, pool.map(size, names), strict=True))
  for name, why in results.items():
    if isinstance(why, str):
      warn(f"{top / name} is left out: {why}")
  return {name: size for name, size in results.items() if not isinstance(size, str)}


def pools_by_name(names: Names, sizes: Sizes, warn: Warn) -> list[Pool]:
  """A pool for each pair of one name and one size."""
  pools, odd = [], []
  for real, fake in zip(names["real"], names["fake"], strict=True):
    a, b = sizes["real"].get(real), sizes["fake"].get(fake)
    if a and b and a != b:
      odd.append(f"{real} has {a[0]}x{a[1]} pixels if real, {b[0]}x{b[1]} if fake")
    elif a and b:
      pools.append(Pool([real], [fake]))
  if odd and pools:
    warn(f"{len(odd)} pairs are left out, such as: {odd[0]}")
  return pools


def pools_by_size(sizes: Sizes, warn: Warn) -> list[Pool]:
  """A pool for each size that both kinds have."""
  by_size = defaultdict(lambda: {"real": [], "fake": []})
  for kind, of in sizes.items():
    for name, size in of.items():
      by_size[size][kind].append(name)
  pools = [Pool(**by_size[size]) for size in sorted(by_size) if all(by_size[size].values())]
  alone = sum(map(len, sizes.values())) - sum(len(p.real) + len(p.fake) for p in pools)
  if alone and pools:
    warn(f"{alone} images are left out: nothing of their size to pair with")
  return pools


def png(path: Path) -> bytes:
  """An image as visitors get it: RGB, upright, nothing but its pixels.

  The PNG is stored without compression, so that two of one size have as many
  bytes.
  """
  buffer = io.BytesIO()
  image = Image.fromarray(np.asarray(upright(path, 3)))
  image.save(buffer, "PNG", compress_level=0)
  return buffer.getvalue()
