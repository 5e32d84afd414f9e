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

Sets = Mapping[str, Mapping[str, Tensor]]  # of tensors, by where they are
GROUP = {"gen": "gen", "ema": "gen", "disc": "disc"}  # of which part


class Layout(NamedTuple):
  """How somebody saves a GAN.

  Attributes:
    nets: How the names of the generators that it may be of begin.
    sets: "gen", "ema" and "disc" -> where their tensors are. Where the
      generator's are "", a file is one network, and "disc" another file.
    entries: (group, its collections) -> the table of names.
    rest: Tensors -> those that are weights.
    more: (group, their names) -> what a file of theirs holds beside weights.
    root: Names that lie beside the sets; a file may lack them.
    write: Whether files like theirs are written.
    last: Weights by their names -> what is written.
    check: Of a config's generator; UserError if weights would mean another.
  """

  nets: str
  sets: Mapping[str, str]
  entries: Callable[[str, Mapping[str, Any]], list[names.Entry]]
  rest: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
  more: Callable[[str, set[str]], dict[str, Tensor]] = lambda group, names: {}
  root: tuple[str, ...] = ()
  write: bool = True
  last: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
  check: Callable[[Mapping[str, Any]], None] = lambda gen: None


GANS = {
  "stylegan2": Layout(
    "nets.stylegan2.",
    {"gen": "g", "ema": "g_ema", "disc": "d"},
    stylegan2_names.port_entries,
    stylegan2_names.without_filters,
    stylegan2_names.port_filters,
    ("latent_avg",),
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
    last=biggan_names.outgoing,
  ),
  "biggan_hub": Layout(
    "nets.biggan_deep.",
    {"ema": ""},
    biggan_names.hub_entries,
    biggan_names.hub_incoming,
    last=biggan_names.hub_outgoing,
    check=biggan_names.hub_check,
  ),
}


def take(
  sets: Sets,
  groups: Mapping[str, Mapping[str, Any]],
  source: str,
  seen: Callable[[int, int], None] = lambda n, total: None,
) -> dict[str, dict[str, Any]]:
  """ "gen", "ema" and "disc", as far as they are there -> our collections.

  Args:
    sets: Of tensors, see `files.sets`.
    groups: "gen" and "disc" -> collections of anything with a shape.
    source: A key of GANS.
    seen: Told how many weights were read, of how many.

  Raises:
    UserError: There is no generator, or names or shapes do not match.
  """
  how, made = GANS[source], {}
  there = {part: at for part, at in how.sets.items() if at in sets}
  if not there.keys() & {"gen", "ema"}:
    raise UserError(
      f"this file holds no generator: want {' or '.join(how.sets.values())}, "
      f"found {', '.join(plain(k) or '.' for k in sets) or 'nothing'}"
    )
  tables, done = {}, 0
  for part, at in there.items():
    tensors = how.rest(sets[at])
    table = how.entries(GROUP[part], groups[GROUP[part]])
    for name in (n for n in how.root if any(e.theirs == (n,) for e in table)):
      if name in sets.get("", {}):
        tensors[name] = flattened(sets[""][name])
      else:
        table = [e for e in table if e.theirs != (name,)]
    tables[part] = table, tensors
  total = sum(len(table) for table, _ in tables.values())
  for part, (table, tensors) in tables.items():
    made[part] = names.fill(table, tensors, lambda n, _, done=done: seen(done + n, total))
    done += len(table)
  return made


def give(parts: Mapping[str, Mapping[str, Any]], source: str) -> dict[str, Any]:
  """Our collections -> sets of their tensors, and what lies beside."""
  how = GANS[source]
  made = {}
  for part, tree in parts.items():
    tensors = how.last(names.spell(how.entries(GROUP[part], tree), tree))
    tensors |= how.more(GROUP[part], set(tensors))
    made |= {k: tensors.pop(k) for k in how.root if k in tensors}
    made[how.sets[part]] = tensors
  return made


def flattened(tensor: Tensor) -> Tensor:
  """The same without axes of length one."""
  shape = tuple(n for n in tensor.shape if n > 1)
  return Tensor(shape, tensor.dtype, lambda: tensor.read().reshape(shape))
