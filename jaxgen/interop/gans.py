"""Whose GANs are known, and which weights of ours theirs are.

    stylegan2  rosinality/stylegan2-pytorch: g, d and g_ema of one file
    nvlabs     NVlabs/stylegan2-ada-pytorch: G, D and G_ema of one pickle
    biggan     ajbrock/BigGAN-PyTorch: G_ema.pth or G.pth, and D.pth
    biggan_hub huggingface/pytorch-pretrained-BigGAN: BigGAN-deep's generator

A group of ours is here the dict of all its linen collections: {"params": ..}.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxgen.errors import UserError
from jaxgen.interop import biggan_names, names, stylegan2_names
from jaxgen.interop.pickles import plain
from jaxgen.interop.tensors import Tensor

Sets = Mapping[str, Mapping[str, Tensor]]  # by where they are in a file
GROUP = {"gen": "gen", "ema": "gen", "disc": "disc"}  # of each part


class Layout(NamedTuple):
  """How somebody saves a GAN.

  Attributes:
    nets: How the names of the generators that it may be of begin.
    sets: "gen", "ema" and "disc" -> where their tensors are. Where the
      generator's are "", a file is one network, and "disc" another file.
    entries: (group, its collections) -> the table of names.
    incoming: Tensors -> those that are weights, as the table has them.
    outgoing: The reverse.
    extras: (group, their names) -> what a file of theirs holds beside weights.
    root: Names that lie beside the sets; a file may lack them.
    write: Whether files like theirs are written.
    check: Raises a UserError of a config's generator that would read the
      weights otherwise.
  """

  nets: str
  sets: Mapping[str, str]
  entries: Callable[[str, Mapping[str, Any]], list[names.Entry]]
  incoming: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
  outgoing: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
  extras: Callable[[str, set[str]], dict[str, Tensor]] = lambda group, names: {}
  root: tuple[str, ...] = ()
  write: bool = True
  check: Callable[[Mapping[str, Any]], None] = lambda gen: None


GANS = {
  "stylegan2": Layout(
    "nets.stylegan2.",
    {"gen": "g", "ema": "g_ema", "disc": "d"},
    stylegan2_names.port_entries,
    stylegan2_names.without_filters,
    extras=stylegan2_names.port_filters,
    root=("latent_avg",),
  ),
  "nvlabs": Layout(
    "nets.stylegan2.",
    {"gen": "G", "ema": "G_ema", "disc": "D"},
    stylegan2_names.entries,
    stylegan2_names.without_filters,
    write=False,
  ),
  "biggan": Layout(
    "nets.biggan",
    {"ema": "", "disc": "disc"},
    biggan_names.entries,
    biggan_names.incoming,
    biggan_names.outgoing,
  ),
  "biggan_hub": Layout(
    "nets.biggan_deep.",
    {"ema": ""},
    biggan_names.hub_entries,
    biggan_names.hub_incoming,
    biggan_names.hub_outgoing,
    check=biggan_names.hub_check,
  ),
}


def take(
  sets: Sets,
  groups: Mapping[str, names.Tree],
  source: str,
  progress: names.Progress = lambda n, total: None,
) -> dict[str, dict[str, Any]]:
  """ "gen", "ema" and "disc", as far as they are there -> our collections.

  Args:
    sets: Sets of tensors, see `tensor_files.sets`.
    groups: "gen" and "disc" -> collections of anything with a shape.
    source: A key of GANS.
    progress: Called after each weight.

  Raises:
    UserError: There is no generator, or names or shapes do not match.
  """
  how, tables = GANS[source], {}
  parts = {part: at for part, at in how.sets.items() if at in sets}
  if not parts.keys() & {"gen", "ema"}:
    raise UserError(
      f"this file holds no generator: want {' or '.join(how.sets.values())}, "
      f"found {', '.join(plain(k) or '.' for k in sets) or 'nothing'}"
    )
  for part, at in parts.items():
    tensors = how.incoming(sets[at])
    table = how.entries(GROUP[part], groups[GROUP[part]])
    for name in (n for n in how.root if any(e.theirs == (n,) for e in table)):
      if name in sets.get("", {}):
        tensors[name] = squeezed(sets[""][name])
      else:
        table = [e for e in table if e.theirs != (name,)]
    tables[part] = table, tensors
  total, done, trees = sum(len(table) for table, _ in tables.values()), 0, {}
  for part, (table, tensors) in tables.items():
    trees[part] = names.fill(table, tensors, lambda n, _, done=done: progress(done + n, total))
    done += len(table)
  return trees


def give(parts: Mapping[str, names.Tree], source: str) -> dict[str, Any]:
  """Our collections -> sets of their tensors, and what lies beside."""
  how, sets = GANS[source], {}
  for part, tree in parts.items():
    tensors = how.outgoing(names.spell(how.entries(GROUP[part], tree), tree))
    tensors |= how.extras(GROUP[part], set(tensors))
    sets |= {k: tensors.pop(k) for k in how.root if k in tensors}
    sets[how.sets[part]] = tensors
  return sets


def squeezed(tensor: Tensor) -> Tensor:
  """The same without axes of length one."""
  shape = tuple(n for n in tensor.shape if n > 1)
  return tensor.map(lambda x: x.reshape(shape), shape)
