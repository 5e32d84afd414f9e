"""What others call the weights of our U-Nets: one table for both directions.

It is made from our own tree, so it fits every width, depth and variant. Sources
are in `jaxgen.interop.unet_names`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor, lazy
from jaxgen.interop.unet_names import SOURCES, Block

SHOWN = 4  # complaints of each kind that are spelt out
BLOCK = re.compile(
  r"(time|label|in|mid|out|head|pool)(?:_(\d+|norm|conv))?"
  r"(?:_(res|attn|down|up))?"
)
# In the order in which PyTorch's modules have them.
SIDES = ("time", "label", "in", "mid", "out", "head", "pool")
KINDS = ("", "res", "attn", "down", "up")
LAYERS = (
  "",
  "positional",
  "norm_1",
  "conv_1",
  "emb",
  "norm_2",
  "conv_2",
  "skip",
  "norm",
  "qkv",
  "proj",
  "conv",
)
LEAVES = {
  "positional": "",
  "kernel": ".weight",
  "scale": ".weight",
  "embedding": ".weight",
  "bias": ".bias",
}


class Entry(NamedTuple):
  """One weight of ours and what it is to them.

  Attributes:
    ours: Path in our tree, "in_1_res/conv_1/kernel".
    shape: Of ours.
    theirs: Names of the tensors that, one after the other along their first
      axis, are this weight; one, but for q, k and v.
    layout: Shape of each of theirs.
    axes: Of ours, in their order; their axes of length one do not count, and
      several of ours may be one of theirs.
    first: Input channels that they have before those that we have first.
  """

  ours: str
  shape: tuple[int, ...]
  theirs: tuple[str, ...]
  layout: tuple[int, ...]
  axes: tuple[int, ...]
  first: int = 0


def entries(tree: Mapping[str, Any], source: str) -> list[Entry]:
  """The table for a tree of ours, in the order of their modules.

  Args:
    tree: Nested dicts of anything with a shape.
    source: A key of SOURCES.

  Raises:
    UserError: There is a weight that this source has no name for.
  """
  how = SOURCES[source]
  leaves = flat(tree)
  parts = {path: part(path, source) for path in leaves}
  blocks = sorted({(rank(b), b) for b, _, _ in parts.values()})
  places = how.places([b for _, b in blocks])
  made = []
  for path, (block, layer, leaf) in sorted(parts.items(), key=lambda item: rank(*item[1])):
    place, names = places.get(block), how.names(block, layer)
    if place is None or names is None:
      raise UserError(f"{source} has no name for this net's {path}")
    theirs = tuple(".".join(filter(None, (place, name))) + LEAVES[leaf] for name in names)
    shape, first = tuple(leaves[path].shape), 0
    if how.low_res_first and path == "in_0/kernel":
      first = shape[-2] - leaves["head_conv/kernel"].shape[-1]
    made.append(
      Entry(
        path,
        shape,
        theirs,
        layout(shape, leaf, how.ones.get(layer, 0), len(theirs)),
        axes(leaf, len(shape)),
        first,
      )
    )
  return made


def part(path: str, source: str) -> tuple[Block, str, str]:
  """ "in_1_res/conv_1/kernel" -> block, layer and leaf."""
  first, *layer, leaf = path.split("/")
  found = BLOCK.fullmatch(first)
  layer = "/".join(layer) or ("positional" if leaf == "positional" else "")
  if not found or leaf not in LEAVES or layer not in LAYERS:
    raise UserError(
      f"{source} has no name for this net's {path}: is it a nets.unet.UNet or Classifier?"
    )
  return Block(*(word or "" for word in found.groups())), layer, leaf


def rank(block: Block, layer: str = "", leaf: str = "kernel") -> tuple:
  """Sorts as PyTorch's modules do."""
  number = {"": 0, "norm": 0, "conv": 1}.get(block.number)
  return (
    SIDES.index(block.side),
    int(block.number) if number is None else number,
    KINDS.index(block.kind),
    LAYERS.index(layer),
    leaf == "bias",
  )


def layout(shape: tuple[int, ...], leaf: str, ones: int, pieces: int) -> tuple[int, ...]:
  """Shape of ours -> shape of each piece of theirs."""
  if leaf == "kernel":
    *space, n_in, n_out = shape
    shape = (n_out, n_in, *space, *[1] * ones)
  return (shape[0] // pieces, *shape[1:])


def axes(leaf: str, rank: int) -> tuple[int, ...]:
  """Kernels have their channels first: out, in; the rest is alike."""
  order = tuple(range(rank))
  return (*order[:-3:-1], *order[:-2]) if leaf == "kernel" else order


def to_ours(entry: Entry, pieces: Sequence[np.ndarray]) -> np.ndarray:
  """Their tensors -> our weight."""
  whole = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
  whole = whole.reshape([entry.shape[i] for i in entry.axes])
  whole = whole.transpose(np.argsort(entry.axes))
  if entry.first:
    whole = np.roll(whole, -entry.first, -2)
  return np.asarray(whole, order="C")


def to_theirs(entry: Entry, ours: np.ndarray) -> list[np.ndarray]:
  """Our weight -> their tensors."""
  ours = np.roll(ours, entry.first, -2) if entry.first else ours
  ours = ours.transpose(entry.axes)
  pieces = np.split(ours, len(entry.theirs)) if len(entry.theirs) > 1 else ([ours])
  return [np.ascontiguousarray(p).reshape(entry.layout) for p in pieces]


def take(
  tensors: Mapping[str, Any],
  tree: Mapping[str, Any],
  source: str,
  seen: Callable[[int, int], None] = lambda n, total: None,
) -> dict[str, Any]:
  """Their tensors as a tree like ours, of float32.

  Args:
    tensors: By their names: arrays, or Tensors.
    tree: Nested dicts of anything with a shape: what is wanted.
    source: A key of SOURCES.
    seen: Told how many weights were read, of how many.

  Raises:
    UserError: Names or shapes do not match, or values are no finite floats.
  """
  how = SOURCES[source]
  return fill(
    entries(tree, source),
    {how.rename(k): v for k, v in tensors.items() if k not in how.ignored},
    seen,
  )


def fill(
  table: Sequence[Entry],
  tensors: Mapping[str, Any],
  seen: Callable[[int, int], None] = lambda n, total: None,
) -> dict[str, Any]:
  """Their tensors as a tree like ours; see `take`."""
  tensors = {k: v if isinstance(v, Tensor) else lazy(np.asarray(v)) for k, v in tensors.items()}
  check(table, tensors)
  made = {}
  for i, entry in enumerate(table):
    pieces = [floats(name, tensors[name].read()) for name in entry.theirs]
    made[entry.ours] = to_ours(entry, pieces)
    seen(i + 1, len(table))
  return nested(made)


def give(tree: Mapping[str, Any], source: str) -> dict[str, Tensor]:
  """Our weights as their tensors; a weight is converted when it is read."""
  return spell(entries(tree, source), tree)


def spell(table: Sequence[Entry], tree: Mapping[str, Any]) -> dict[str, Tensor]:
  """Our weights by a table, as `give` gives them."""
  leaves, made = flat(tree), {}
  for entry in table:
    for i, name in enumerate(entry.theirs):

      def read(entry=entry, i=i):
        return to_theirs(entry, np.asarray(leaves[entry.ours]))[i]

      made[name] = Tensor(entry.layout, np.dtype(leaves[entry.ours].dtype), read)
  return made


def floats(name: str, values: np.ndarray) -> np.ndarray:
  """As float32; UserError for what is not finite, or no float."""
  if values.dtype.kind not in "fV":  # bfloat16 is a V
    raise UserError(f"{plain(name)} is {values.dtype} in the file: want floats")
  values = values.astype(np.float32, copy=False)
  if not np.isfinite(values).all():
    raise UserError(f"{plain(name)} holds NaN or infinity in the file")
  return values


def check(table: Sequence[Entry], tensors: Mapping[str, Tensor]) -> None:
  """UserError unless exactly the table's tensors are there.

  It counts what is wrong by kind, and shows the first few.
  """
  wanted = {name: e.layout for e in table for name in e.theirs}
  kinds = {
    "of another shape": [
      f"{plain(n)}: file has {list(tensors[n].shape)}, config wants {list(shape)}"
      for n, shape in wanted.items()
      if n in tensors and tuple(tensors[n].shape) != shape
    ],
    "not in the file": [n for n in wanted if n not in tensors],
    "not in the config's net": [plain(n) for n in tensors if n not in wanted],
  }
  wrong = [
    f"{len(names)} {kind} ({', '.join(names[:SHOWN])}" + (", ..)" if len(names) > SHOWN else ")")
    for kind, names in kinds.items()
    if names
  ]
  if wrong:
    raise UserError(
      f"file and config do not match: of {len(wanted)} tensors "
      "that the config wants and "
      f"{len(tensors)} in the file, " + "; ".join(wrong)
    )


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
  """Nested dicts -> {"a/b": leaf}."""
  found = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      found |= flat(value, f"{above}{key}/")
    else:
      found[above + key] = value
  return found


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """{"a/b": leaf} -> nested dicts."""
  tree = {}
  for path, leaf in leaves.items():
    *above, last = path.split("/")
    node = tree
    for key in above:
      node = node.setdefault(key, {})
    node[last] = leaf
  return tree
