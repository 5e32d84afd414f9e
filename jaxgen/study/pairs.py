"""Which images a visitor sees: one real and one fake, of the same size."""

import dataclasses
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxgen.data.folder import listing
from jaxgen.data.image import upright
from jaxgen.errors import UserError

MOST = 1000  # images of a folder that are looked at, drawn by the seed
PAIRINGS = ("auto", "name", "random")


class Trial(NamedTuple):
  """One question. Names are below the folders; `left` is real or fake."""

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
  """All that visitors may be asked.

  Attributes:
    folders: Where images lie: real, fake and low, if there is one.
    pools: One for each pair of the same name, or for each size.
    lows: The small input of each fake image.
    matched: Whether a pair shows the same scene.
    seed: Of what a visitor sees.
  """

  folders: dict[str, Path]
  pools: list[Pool]
  lows: dict[str, str]
  matched: bool
  seed: int

  @property
  def count(self) -> int:
    """How many pairs a visitor could see, no image twice."""
    return sum(min(map(len, pool)) for pool in self.pools)

  @property
  def digest(self) -> str:
    """Of all names, and of how they may be paired."""
    text = repr((self.pools, sorted(self.lows.items()))).encode()
    return hashlib.sha256(text).hexdigest()[:16]

  def trials(self, visitor: str, num: int) -> list[Trial]:
    """The first `num` questions to a visitor, by the seed and who it is."""
    words = hashlib.sha256(f"{self.seed}/{visitor}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(words, np.uint32))
    pairs = [
      pair
      for pool in self.pools
      for pair in zip(rng.permutation(pool.real), rng.permutation(pool.fake), strict=False)
    ]
    chosen = rng.permutation(len(pairs))[:num]
    sides = rng.integers(2, size=len(chosen))
    return [
      Trial(*map(str, pairs[i]), self.lows.get(str(pairs[i][1])), ("real", "fake")[side])
      for i, side in zip(chosen, sides, strict=True)
    ]


def look(
  real: str, fake: str, low: str | None, pairing: str, seed: int, say: Callable[[str], None]
) -> Pairs:
  """Looks at folders; `say` is told of images that are left out.

  Args:
    real: Folder of photographs.
    fake: Folder of what a model made.
    low: Folder of what it was made from, by the names of `fake`.
    pairing: "name": images of one name are one scene; "random": they are not;
      "auto": names count if most of them are common to both folders.
    seed: Which images are looked at, if there are more than MOST.
    say: Called with one line.

  Raises:
    UserError: No images, no names or no size in common.
  """
  if pairing not in PAIRINGS:
    raise UserError(f"--pairing={pairing}: want {', '.join(PAIRINGS)}")
  folders = {
    kind: Path(path).expanduser()
    for kind, path in (("real", real), ("fake", fake), ("low", low))
    if path
  }
  for kind, top in folders.items():
    if not top.is_dir():
      raise UserError(f"--{kind}={top}: there is no such folder")
  names = {kind: stems(listing(top)) for kind, top in folders.items()}
  matched, lows = agreed(names, folders, pairing)
  chosen = candidates(names, matched, lows, np.random.default_rng(seed))
  sizes = {k: measured(folders[k], v, say) for k, v in chosen.items()}
  if lows:
    good = measured(folders["low"], [lows[n] for n in sizes["fake"]], say)
    sizes["fake"] = {n: size for n, size in sizes["fake"].items() if lows[n] in good}
    lows = {n: lows[n] for n in sizes["fake"]}
  pools = (alike if matched else by_size)(chosen, sizes, say)
  if not pools:
    shown = {
      k: " ".join(sorted({f"{w}x{h}" for w, h in v.values()})[:3]) or "broken images"
      for k, v in sizes.items()
    }
    raise UserError(
      f"no pair has one size: {real} holds {shown['real']}, {fake} "
      f"{shown['fake']}; bring them to the same size"
    )
  return Pairs(folders, pools, lows, matched, seed)


def agreed(
  names: dict[str, dict[str, str]], folders: dict[str, Path], pairing: str
) -> tuple[bool, dict[str, str]]:
  """Whether names are scenes, and {fake: low} where there are small inputs."""
  common = names["real"].keys() & names["fake"].keys()
  fewer = min(len(names["real"]), len(names["fake"]))
  matched = pairing == "name" or (pairing == "auto" and 2 * len(common) > fewer)
  if matched and not common:
    raise UserError(
      f"{folders['real']} and {folders['fake']} have no names "
      "in common: --pairing=random pairs at random"
    )
  small = names.get("low", {})
  lows = {name: small[stem] for stem, name in names["fake"].items() if stem in small}
  if small and not lows:
    raise UserError(f"{folders['low']} has none of the names of {folders['fake']}")
  return matched, lows


def candidates(
  names: dict[str, dict[str, str]], matched: bool, lows: dict[str, str], rng: np.random.Generator
) -> dict[str, list[str]]:
  """Names to look at: at most MOST of a kind; in pairs where matched."""
  fake = {stem: name for stem, name in names["fake"].items() if not lows or name in lows}
  if matched:
    common = some(sorted(names["real"].keys() & fake.keys()), rng)
    return {
      "real": [names["real"][stem] for stem in common],
      "fake": [fake[stem] for stem in common],
    }
  return {
    "real": some(sorted(names["real"].values()), rng),
    "fake": some(sorted(fake.values()), rng),
  }


def stems(names: list[str]) -> dict[str, str]:
  """{"a/b": "a/b.png"}; of several with one stem, the first."""
  return {name.rpartition(".")[0]: name for name in reversed(names)}


def some(names: Sequence[str], rng: np.random.Generator) -> list[str]:
  """At most MOST of them, in order."""
  chosen = sorted(rng.permutation(len(names))[:MOST])
  return [names[i] for i in chosen]


def measured(top: Path, names: list[str], say: Callable[[str], None]) -> dict[str, tuple[int, int]]:
  """Width and height of each image that can be read; others are told."""

  def size(name):
    try:
      return upright(top / name, 3).size
    except Exception as e:  # a broken file may fail anywhere in a decoder
      return (str(e) or type(e).__name__).splitlines()[0].split(" '/")[0]

  good = {}
  with ThreadPoolExecutor(4) as pool:
    for name, found in zip(names, pool.map(size, names), strict=True):
      if isinstance(found, str):
        say(f"{top / name} is left out: {found}")
      else:
        good[name] = found
  return good


def alike(
  names: dict[str, list[str]], sizes: dict[str, dict], say: Callable[[str], None]
) -> list[Pool]:
  """A pool for each two of one name."""
  pools, odd = [], []
  for real, fake in zip(names["real"], names["fake"], strict=True):
    a, b = sizes["real"].get(real), sizes["fake"].get(fake)
    if a and b and a != b:
      odd.append(f"{real} has {a[0]}x{a[1]} pixels if real, {b[0]}x{b[1]} if fake")
    elif a and b:
      pools.append(Pool([real], [fake]))
  if odd and pools:
    say(f"{len(odd)} pairs are left out, such as: {odd[0]}")
  return pools


def by_size(
  names: dict[str, list[str]], sizes: dict[str, dict], say: Callable[[str], None]
) -> list[Pool]:
  """A pool for each size that both kinds have."""
  pools = defaultdict(lambda: Pool([], []))
  for kind, found in sizes.items():
    for name, size in found.items():
      getattr(pools[size], kind).append(name)
  alone = sum(len(p.real + p.fake) for p in pools.values() if not all(p))
  if alone and any(map(all, pools.values())):
    say(f"{alone} images are left out: nothing of their size to pair with")
  return [pools[size] for size in sorted(pools) if all(pools[size])]


def encoded(path: Path) -> bytes:
  """An image as visitors get it: RGB, upright, nothing but its pixels.

  The PNG is stored without compression, so that two of one size have as many
  bytes.
  """
  buffer = io.BytesIO()
  image = Image.fromarray(np.asarray(upright(path, 3)))
  image.save(buffer, "PNG", compress_level=0)
  return buffer.getvalue()
