"""What others call the weights of BigGAN: the authors' port, and the hubs'.

    biggan      ajbrock/BigGAN-PyTorch: G.pth, G_ema.pth, D.pth
    biggan_hub  huggingface/pytorch-pretrained-BigGAN: BigGAN-deep's generator,
                of DeepMind's weights

A group of ours is here {"params": .., "spectral": .., "batch_stats": ..}.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop import names
from jaxgen.interop.names import Entry
from jaxgen.interop.tensors import Tensor

Tensors = Mapping[str, Tensor]
Tree = Mapping[str, Any]
PLACE = re.compile(r"(?:block|attn)_(\d+)_(\d+)")
# Our modules -> theirs, outside of blocks and within.
OUTER = {
  "label": "shared",
  "linear": "linear",
  "head/label": "embed",
  "head/linear": "linear",
  "stem": "input_conv",
  "norm": "output_layer.0",
  "conv": "output_layer.2",
}
INNER = {"skip": "conv_sc"} | {
  f"{ours}_{i}": f"{theirs}{i}"
  for i in range(1, 5)
  for ours, theirs in (("conv", "conv"), ("norm", "bn"))
}
LEAVES = {
  "kernel": "weight",
  "embedding": "weight",
  "u": "u0",
  "sigma": "sv0",
  "mean": "stored_mean",
  "var": "stored_var",
}
HUB_OUTER = {
  "label": "embeddings",
  "linear": "generator.gen_z",
  "norm": "generator.bn",
  "conv": "generator.conv_to_rgb",
}
HUB_INNER = (
  {"gain": "scale", "bias": "offset", "o": "snconv1x1_o_conv"}
  | {
    f"{ours}_{i + 1}": f"{theirs}_{i}"
    for i in range(4)
    for ours, theirs in (("conv", "conv"), ("norm", "bn"))
  }
  | {part: f"snconv1x1_{part}" for part in ("theta", "phi", "g")}
)
HUB_LEAVES = {
  "kernel": "weight_orig",
  "u": "weight_u",
  "sigma": "weight_v",
  "embedding": "weight",
  "mean": "running_means",
  "var": "running_vars",
}


def entries(group: str, tree: Tree) -> list[Entry]:
  """The table of the authors' port, for "gen" or "disc"."""
  del group
  made = []
  for path, leaf in names.flat(tree).items():
    kind, *module, last = path.split("/")
    found = PLACE.fullmatch(module[0]) if module else None
    if found:
      inner = [INNER.get(m, m) for m in module[1:]]
      stem = ".".join(("blocks", *found.groups(), *inner))
    else:
      stem = OUTER.get("/".join(module))
    if stem is None:
      raise unknown("biggan", path)
    shape, name = tuple(leaf.shape), f"{stem}.{LEAVES.get(last, last)}"
    ones = (1,) if kind == "spectral" else ()
    made.append(entry(path, shape, name, ones))
  return made


def hub_entries(group: str, tree: Tree) -> list[Entry]:
  """The table of the hubs' port."""
  leaves = names.flat(tree)
  if group != "gen" or "params/label/embedding" not in leaves:
    raise UserError("biggan_hub has names for a class-conditional generator alone")
  order = sorted({tuple(map(int, m.groups())) for m in map(PLACE.match, tree["params"]) if m})
  words = leaves["params/label/embedding"].shape[-1]
  made = []
  for path, leaf in leaves.items():
    kind, *module, last = path.split("/")
    found = PLACE.fullmatch(module[0])
    if found:
      number = order.index(tuple(map(int, found.groups())))
      inner = [HUB_INNER.get(m) for m in module[1:]]
      stem = None if None in inner else ".".join(("generator.layers", str(number), *inner))
    else:
      stem = HUB_OUTER.get("/".join(module))
    if stem is None:
      raise unknown("biggan_hub", path)
    shape, name = tuple(leaf.shape), f"{stem}.{HUB_LEAVES.get(last, last)}"
    if path == "params/norm/gain":
      name = f"{stem}.weight"
    made.append(entry(path, shape, name, (1,) if last == "gamma" else ()))
    if last == "embedding":  # theirs is a linear layer
      made[-1] = made[-1]._replace(layout=shape[::-1], axes=(1, 0))
    elif last == "kernel" and len(shape) == 2:  # theirs are told z, then y
      made[-1] = made[-1]._replace(first=shape[0] - words)
  return made


def unknown(source: str, path: str) -> UserError:
  """For a weight without a name."""
  return UserError(
    f"{source} has no name for this net's {path}: is it a "
    "Generator or Discriminator of nets.biggan or biggan_deep?"
  )


def entry(path: str, shape: tuple[int, ...], name: str, ones: tuple[int, ...]) -> Entry:
  """One row; `ones`: axes of length one with which their tensor begins."""
  axes = names.axes(path.rpartition("/")[2], len(shape))
  return Entry(path, shape, (name,), (*ones, *(shape[i] for i in axes)), axes)


def incoming(tensors: Tensors) -> dict[str, Tensor]:
  """The authors' tensors, the generator's bottom with channels last."""
  return turned(
    {
      re.sub(r"\.bn\.(stored|running)_", ".stored_", k): v
      for k, v in tensors.items()  # of batch norms of other kinds
      if not k.endswith((".accumulation_counter", ".num_batches_tracked"))
    },
    lambda x, channels: x.reshape(channels, -1).T,
  )


def outgoing(tensors: Tensors) -> dict[str, Tensor]:
  """The reverse."""
  return turned(tensors, lambda x, channels: x.reshape(-1, channels).T)


def turned(tensors: Tensors, order: Callable[[np.ndarray, int], np.ndarray]) -> dict[str, Tensor]:
  """What a generator's first layer makes, in another order."""
  made, conv = dict(tensors), tensors.get("blocks.0.0.conv1.weight")
  for name in ("linear.weight", "linear.bias", "linear.u0"):
    tensor, axis = tensors.get(name), int(name.endswith("u0"))
    if (
      None in (conv, tensor)
      or len(conv.shape) < 2
      or (len(tensor.shape) <= axis)
      or tensor.shape[axis] % conv.shape[1]
    ):
      continue  # a discriminator's, or odd: then the table tells

    def read(tensor=tensor, axis=axis):
      values = tensor.read()
      index = order(np.arange(values.shape[axis]), conv.shape[1])
      return np.take(values, index.reshape(-1), axis=axis)

    made[name] = tensor._replace(read=read)
  return made


def hub_incoming(tensors: Tensors) -> dict[str, Tensor]:
  """The hubs' tensors, where v is replaced by the singular value it means."""
  made = dict(tensors)
  for name, v in tensors.items():
    stem = name.removesuffix("_v")
    parts = tensors.get(f"{stem}_orig"), tensors.get(f"{stem}_u")
    if stem == name or None in parts or v.shape != (int(np.prod(parts[0].shape[1:])),):
      continue

    def read(parts=(*parts, v)):
      W, u, v = (part.read().astype(np.float32) for part in parts)
      return np.float32(u @ (W.reshape(len(u), -1) @ v))

    made[name] = Tensor((), np.dtype(np.float32), read)
  return made


def hub_outgoing(tensors: Tensors) -> dict[str, Tensor]:
  """The reverse: a v with which u and the weight mean the value."""
  made = dict(tensors)
  for name, sigma in tensors.items():
    stem = name.removesuffix("_v")
    if stem == name:
      continue
    W, u = tensors[f"{stem}_orig"], tensors[f"{stem}_u"]

    def read(W=W, u=u, sigma=sigma):
      v = u.read() @ W.read().reshape(W.shape[0], -1)
      return v * (sigma.read() / np.maximum(v @ v, 1e-30))

    made[name] = Tensor((int(np.prod(W.shape[1:])),), W.dtype, read)
  return made


def hub_check(gen: Mapping[str, Any]) -> None:
  """UserError if the values that they divide weights by would be others."""
  if not gen.get("norm", {}).get("stored"):
    raise UserError(
      "biggan_hub divides by values that are stored: set config."
      'model.gen.norm=dict(name="nets.spectral.spectral", '
      "stored=True), as configs/biggan_deep.py:hub128 has it"
    )
