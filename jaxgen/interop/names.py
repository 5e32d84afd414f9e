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

Tree = Mapping[str, Any]  # nested dicts of arrays, or of anything with a shape
Progress = Callable[[int, int], None]  # gets how many weights were read, of how many

SHOWN = 4  # complaints of each kind that are spelt out
BLOCK = re.compile(
  r"(time|label|in|mid|out|head|pool)(?:_(\d+|norm|conv))?"
  r"(?:_(res|attn|down|up))?"
)
# In the order in which PyTorch's modules have them.
SIDES = ("time", "label", "in", "mid", "out", "head", "pool")
KINDS = ("", "res", "attn", "down", "up")
LAYERS = (
  "", "positional", "norm_1", "conv_1", "emb", "norm_2", "conv_2", "skip",
  "norm", "qkv", "proj", "conv",
)  # fmt: skip
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
    shape: Shape of ours.
    theirs: Names of the tensors that, one after the other along their first
      axis, are this weight; one, but for q, k and v.
    layout: Shape of each of theirs.
    axes: Axes of ours in their order; their axes of length one do not count,
      and several of ours may be one of theirs.
    first: Input channels that they have before those that we have first.
  """

  ours: str
  shape: tuple[int, ...]
  theirs: tuple[str, ...]
  layout: tuple[int, ...]
  axes: tuple[int, ...]
  first: int = 0


def entry(
  path: str,
  leaf: Any,
  *theirs: str,
  before: int = 0,
  after: int = 0,
  axes: tuple[int, ...] | None = None,
  first: int = 0,
) -> Entry:
  """The row of one weight.

  Args:
    path: In our tree.
    leaf: Anything with the weight's shape.
    *theirs: Names of their tensors.
    before: Axes of length one with which theirs begin.
    after: Axes of length one with which they end.
    axes: See Entry; by default kernels have their channels first there: out,
      in; and the others are alike.
    first: See Entry.
  """
  shape = tuple(leaf.shape)
  if axes is None:
    axes = tuple(range(len(shape)))
    if path.endswith("kernel"):
      axes = (*axes[:-3:-1], *axes[:-2])
  layout = [1] * before + [shape[i] for i in axes] + [1] * after
  layout[:1] = [n // len(theirs) for n in layout[:1]]
  return Entry(path, shape, theirs, tuple(layout), axes, first)


def entries(tree: Tree, source: str) -> list[Entry]:
  """The table for a tree of ours, in the order of their modules.

  Args:
    tree: Our net's parameters.
    source: A key of SOURCES.

  Raises:
    UserError: There is a weight that this source has no name for.
  """
  how = SOURCES[source]
  leaves = flat(tree)
  parts = {path: split_path(path, source) for path in leaves}
  blocks = sorted({(rank(b), b) for b, _, _ in parts.values()})
  places = how.places([b for _, b in blocks])
  table = []
  for path, (block, layer, leaf) in sorted(parts.items(), key=lambda item: rank(*item[1])):
    place, names = places.get(block), how.names(block, layer)
    if place is None or names is None:
      raise UserError(f"{source} has no name for this net's {path}")
    theirs = [".".join(filter(None, (place, name))) + LEAVES[leaf] for name in names]
    first = 0
    if how.low_res_first and path == "in_0/kernel":
      first = leaves[path].shape[-2] - leaves["head_conv/kernel"].shape[-1]
    ones = how.ones.get(layer, 0) if leaf == "kernel" else 0
    table.append(entry(path, leaves[path], *theirs, after=ones, first=first))
  return table


def split_path(path: str, source: str) -> tuple[Block, str, str]:
  """ "in_1_res/conv_1/kernel" -> block, layer and leaf."""
  block, *layer, leaf = path.split("/")
  match = BLOCK.fullmatch(block)
  layer = "/".join(layer) or ("positional" if leaf == "positional" else "")
  if not match or leaf not in LEAVES or layer not in LAYERS:
    raise UserError(
      f"{source} has no name for this net's {path}: is it a nets.unet.UNet or Classifier?"
    )
  return Block(*(word or "" for word in match.groups())), layer, leaf


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


def to_ours(entry: Entry, pieces: Sequence[np.ndarray]) -> np.ndarray:
  """Their tensors -> our weight."""
  weight = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
  weight = weight.reshape([entry.shape[i] for i in entry.axes])
  weight = weight.transpose(np.argsort(entry.axes))
  if entry.first:
    weight = np.roll(weight, -entry.first, -2)
  return np.asarray(weight, order="C")


def to_theirs(entry: Entry, ours: np.ndarray) -> list[np.ndarray]:
  """Our weight -> their tensors."""
  ours = np.roll(ours, entry.first, -2) if entry.first else ours
  ours = ours.transpose(entry.axes)
  pieces = np.split(ours, len(entry.theirs)) if len(entry.theirs) > 1 else [ours]
  return [np.ascontiguousarray(p).reshape(entry.layout) for p in pieces]


def take(
  tensors: Mapping[str, Any], tree: Tree, source: str, progress: Progress = lambda n, total: None
) -> dict[str, Any]:
  """Their tensors as a tree like ours, of float32.

  Args:
    tensors: By their names: arrays, or Tensors.
    tree: Our net's parameters, or their shapes.
    source: A key of SOURCES.
    progress: Called after each weight.

  Raises:
    UserError: Names or shapes do not match, or values are no finite floats.
  """
  how = SOURCES[source]
  tensors = {how.rename(k): v for k, v in tensors.items() if k not in how.ignored}
  return fill(entries(tree, source), tensors, progress)


def fill(
  table: Sequence[Entry], tensors: Mapping[str, Any], progress: Progress = lambda n, total: None
) -> dict[str, Any]:
  """Their tensors as a tree like ours; see `take`."""
  tensors = {k: v if isinstance(v, Tensor) else lazy(np.asarray(v)) for k, v in tensors.items()}
  check_table(table, tensors)
  leaves = {}
  for i, entry in enumerate(table, 1):
    pieces = [floats(name, tensors[name].read()) for name in entry.theirs]
    leaves[entry.ours] = to_ours(entry, pieces)
    progress(i, len(table))
  return nested(leaves)


def give(tree: Tree, source: str) -> dict[str, Tensor]:
  """Our weights as their tensors; a weight is converted when it is read."""
  return spell(entries(tree, source), tree)


def spell(table: Sequence[Entry], tree: Tree) -> dict[str, Tensor]:
  """Our weights by a table, as `give` gives them."""
  leaves, tensors = flat(tree), {}
  for entry in table:
    leaf = leaves[entry.ours]
    for i, name in enumerate(entry.theirs):
      read = lambda entry=entry, leaf=leaf, i=i: to_theirs(entry, np.asarray(leaf))[i]
      tensors[name] = Tensor(entry.layout, np.dtype(leaf.dtype), read)
  return tensors


def floats(name: str, values: np.ndarray) -> np.ndarray:
  """As float32; UserError for what is not finite, or no float."""
  if values.dtype.kind not in "fV":  # bfloat16 is a V
    raise UserError(f"{plain(name)} is {values.dtype} in the file: want floats")
  values = values.astype(np.float32, copy=False)
  if not np.isfinite(values).all():
    raise UserError(f"{plain(name)} holds NaN or infinity in the file")
  return values


def check_table(table: Sequence[Entry], tensors: Mapping[str, Tensor]) -> None:
  """UserError unless exactly the table's tensors are there.

  It counts what is wrong by kind, and shows the first few.
  """
  shapes = {name: e.layout for e in table for name in e.theirs}
  kinds = {
    "of another shape": [
      f"{plain(n)}: file has {list(tensors[n].shape)}, config wants {list(shape)}"
      for n, shape in shapes.items()
      if n in tensors and tuple(tensors[n].shape) != shape
    ],
    "not in the file": [n for n in shapes if n not in tensors],
    "not in the config's net": [plain(n) for n in tensors if n not in shapes],
  }
  wrong = [
    f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{', ..' if len(names) > SHOWN else ''})"
    for kind, names in kinds.items()
    if names
  ]
  if wrong:
    raise UserError(
      f"file and config do not match: of {len(shapes)} tensors that the config wants and "
      f"{len(tensors)} in the file, {'; '.join(wrong)}"
    )


def flat(tree: Tree, above: str = "") -> dict[str, Any]:
  """Nested dicts -> {"a/b": leaf}."""
  leaves = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= flat(value, f"{above}{key}/")
    else:
      leaves[above + key] = value
  return leaves


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


def fits(table: Sequence[Entry], tensors: Mapping[str, Any]) -> bool:
  """Whether a table has exactly these tensors, by name and shape."""
  shapes = {name: tuple(t.shape) for name, t in tensors.items()}
  return shapes == {entry.theirs[0]: entry.layout for entry in table}
