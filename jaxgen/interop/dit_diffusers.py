"""diffusers' DiTTransformer2DModel: the published weights under other names.

Queries, keys and values lie apart there, and every block has a copy of its own
of the embeddings of time and label, of which one is read.
"""

import re
from collections.abc import Mapping

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.tensors import Tensor

BLOCK = re.compile(r"(?:transformer_blocks|blocks)\.(\d+)\.(.+)")
EMBEDDINGS = "norm1.emb."
# diffusers -> published, without ".weight" and ".bias".
OUTER = {
  "pos_embed.proj": "x_embedder.proj",
  "proj_out_1": "final_layer.adaLN_modulation.1",
  "proj_out_2": "final_layer.linear",
}
INNER = {
  "norm1.linear": "adaLN_modulation.1",
  "attn1.to_out.0": "attn.proj",
  "ff.net.0.proj": "mlp.fc1",
  "ff.net.2": "mlp.fc2",
}
SHARED = {
  "timestep_embedder.linear_1": "t_embedder.mlp.0",
  "timestep_embedder.linear_2": "t_embedder.mlp.2",
  "class_embedder.embedding_table": "y_embedder.embedding_table",
}
QKV = re.compile(r"attn1\.to_([qkv])")


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Tensors of diffusers by the published names; unknown ones keep theirs."""
  renamed, copies, parts = {}, {}, {}
  for name, tensor in tensors.items():
    module, _, leaf = name.rpartition(".")
    block = BLOCK.fullmatch(module)
    if not block:
      renamed[f"{OUTER.get(module, module)}.{leaf}" if module else name] = tensor
    elif (shared := block[2].removeprefix(EMBEDDINGS)) in SHARED:
      copies.setdefault(f"{SHARED[shared]}.{leaf}", []).append(tensor)
    elif part := QKV.fullmatch(block[2]):
      parts.setdefault(f"blocks.{block[1]}.attn.qkv.{leaf}", {})[part[1]] = tensor
    elif block[2] in INNER:
      renamed[f"blocks.{block[1]}.{INNER[block[2]]}.{leaf}"] = tensor
    else:
      renamed[name] = tensor
  renamed |= {name: alike(name, same) for name, same in copies.items()}
  return renamed | {name: joined(three) for name, three in parts.items() if len(three) == 3}


def alike(name: str, copies: list[Tensor]) -> Tensor:
  """The first of copies, which all have to be the same."""

  def read() -> np.ndarray:
    value = copies[0].read()
    if any(not np.array_equal(value, copy.read()) for copy in copies[1:]):
      raise UserError(
        f"blocks of the file have {name} of their own: it was trained on by diffusers"
      )
    return value

  return copies[0]._replace(read=read)


def joined(parts: Mapping[str, Tensor]) -> Tensor:
  """Queries, keys and values, one below the other."""
  rows = [parts[part] for part in "qkv"]
  shape = (sum(t.shape[0] for t in rows), *rows[0].shape[1:])
  return Tensor(shape, rows[0].dtype, lambda: np.concatenate([t.read() for t in rows]))


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Published tensors by diffusers' names; fixed places are left out."""
  outer, inner, shared = ({v: k for k, v in table.items()} for table in (OUTER, INNER, SHARED))
  depth = 1 + max(int(m[1]) for m in map(BLOCK.fullmatch, tensors) if m)
  out = {}
  for name, tensor in tensors.items():
    module, _, leaf = name.rpartition(".")
    block = BLOCK.fullmatch(module)
    if not module:
      continue
    if module in shared:
      place = f"{EMBEDDINGS}{shared[module]}.{leaf}"
      out |= {f"transformer_blocks.{i}.{place}": tensor for i in range(depth)}
    elif not block:
      out[f"{outer[module]}.{leaf}"] = tensor
    elif block[2] == "attn.qkv":
      place = f"transformer_blocks.{block[1]}.attn1.to_"
      out |= {f"{place}{part}.{leaf}": third(tensor, i) for i, part in enumerate("qkv")}
    else:
      out[f"transformer_blocks.{block[1]}.{inner[block[2]]}.{leaf}"] = tensor
  return out


def third(tensor: Tensor, i: int) -> Tensor:
  """The i-th of three equal parts of a tensor's rows."""
  rows = tensor.shape[0] // 3
  return tensor.map(lambda x: x[i * rows : (i + 1) * rows], (rows, *tensor.shape[1:]))
