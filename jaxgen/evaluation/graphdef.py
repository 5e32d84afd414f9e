"""Inception as TensorFlow published it: a frozen graph, read without it.

A GraphDef is a protocol buffer, that is, numbered fields one after another.
Of it we want those of TensorFlow's graph.proto, node_def.proto,
attr_value.proto and tensor.proto that lead to constants of float32.
"""
import math
from collections.abc import Iterator, Mapping

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FLOAT = 1   # DT_FLOAT
DIMS = 8    # of a constant, at most
LARGEST = 1 << 22       # values that are all alike, likewise
NODES = 1 << 16         # of a graph; Inception has about a thousand

BLOCKS = {"mixed": "A 5b", "mixed_1": "A 5c", "mixed_2": "A 5d",
          "mixed_3": "B 6a", "mixed_4": "C 6b", "mixed_5": "C 6c",
          "mixed_6": "C 6d", "mixed_7": "C 6e", "mixed_8": "D 7a",
          "mixed_9": "E 7b", "mixed_10": "E 7c"}
BRANCHES = {  # of each kind of block: TensorFlow's towers, convs in order
    "A": {"": "1x1", "tower": "5x5_1 5x5_2",
          "tower_1": "3x3dbl_1 3x3dbl_2 3x3dbl_3", "tower_2": "_pool"},
    "B": {"": "3x3", "tower": "3x3dbl_1 3x3dbl_2 3x3dbl_3"},
    "C": {"": "1x1", "tower": "7x7_1 7x7_2 7x7_3", "tower_2": "_pool",
          "tower_1": "7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5"},
    "D": {"tower": "3x3_1 3x3_2",
          "tower_1": "7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4"},
    "E": {"": "1x1", "tower": "3x3_1", "tower/mixed": "3x3_2a 3x3_2b",
          "tower_1": "3x3dbl_1 3x3dbl_2",
          "tower_1/mixed": "3x3dbl_3a 3x3dbl_3b", "tower_2": "_pool"}}
STEM = "1a_3x3 2a_3x3 2b_3x3 3b_1x1 4a_3x3"


def constants(graph: bytes) -> dict[str, np.ndarray]:
  """A serialised GraphDef -> its float32 constants by name.

  Raises:
    ValueError: It is damaged, or something else.
  """
  found = {}
  for i, node in enumerate(every(memoryview(graph), 1)):  # GraphDef.node
    if i >= NODES:
      raise ValueError("it has more nodes than any Inception")
    if b"".join(every(node, 2)) == b"Const":
      for attribute in every(node, 5):  # NodeDef.attr, a map
        if b"".join(every(attribute, 1)) == b"value":
          for value in every(attribute, 2):
            for data in every(value, 8):  # AttrValue.tensor
              array = tensor(data)
              if array is not None:
                found[b"".join(every(node, 1)).decode("utf-8")] = array
  return found


def tensor(data: memoryview) -> np.ndarray | None:
  """A TensorProto of float32; None for other types."""
  dtype = [v for n, v in fields(data) if n == 1]
  if dtype != [FLOAT]:
    return None
  shape = []
  for dim in (d for s in every(data, 2) for d in every(s, 2)):
    shape.append(dict(fields(dim)).get(1, 0))  # TensorShapeProto.dim.size
  if len(shape) > DIMS or any(
      not isinstance(n, int) or n > 1 << 40 for n in shape):
    raise ValueError("a constant has a strange shape")
  # As bytes; or as numbers, all in one field or each in its own.
  values = np.frombuffer(
      b"".join(every(data, 4)) or b"".join(every(data, 5)), "<f4")
  count = math.prod(shape)
  if len(values) == 1 and 1 < count <= LARGEST:
    values = np.broadcast_to(values, count)  # all alike are stored once
  if len(values) != count:
    raise ValueError("a constant has another size than its shape")
  return values.reshape(shape)


def every(data: memoryview, number: int) -> Iterator[memoryview]:
  """The fields of a message that have a number and hold bytes."""
  for n, value in fields(data):
    if n == number:
      if isinstance(value, int):
        raise ValueError("there is a number in the place of bytes")
      yield value


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """The fields of a message: numbers, and values as integers or bytes."""
  at = 0
  while at < len(data):
    key, at = varint(data, at)
    number, kind = key >> 3, key & 7
    if kind == VARINT:
      value, at = varint(data, at)
    else:
      if kind == BYTES:
        size, at = varint(data, at)
      elif kind in (FIXED32, FIXED64):
        size = 4 if kind == FIXED32 else 8
      else:
        raise ValueError(f"no such wire type: {kind}")
      if size > len(data) - at:
        raise ValueError("it is cut short")
      value, at = data[at:at + size], at + size
    yield number, value


def varint(data: memoryview, at: int) -> tuple[int, int]:
  """An integer of 7 bits per byte, and where it ends."""
  value = 0
  for shift in range(0, 70, 7):
    if at >= len(data):
      raise ValueError("it is cut short")
    value |= (data[at] & 127) << shift
    at += 1
    if data[at - 1] < 128:
      return value, at
  raise ValueError("an integer is too long")


def scopes() -> dict[str, str]:
  """TensorFlow's scope of each convolution -> pytorch-fid's module."""
  def numbered(prefix, names, scope):
    for i, name in enumerate(names.split()):
      yield "/".join(filter(None, (scope, f"conv_{i}" if i else "conv"))), (
          prefix + name)
  found = dict(numbered("Conv2d_", STEM, ""))
  for block, (kind, name) in ((k, v.split()) for k, v in BLOCKS.items()):
    for tower, names in BRANCHES[kind].items():
      scope = "/".join(filter(None, (block, tower)))
      found |= numbered(f"Mixed_{name}.branch", names, scope)
  return found


def inception(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """TensorFlow's constants -> tensors by PyTorch's names, in its layout."""
  result = {}
  norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
          "moving_variance": "running_var"}
  for scope, module in scopes().items():
    kernel = found.get(f"{scope}/conv2d_params")
    if kernel is not None and kernel.ndim == 4:
      result[f"{module}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
    for theirs, ours in norm.items():
      if f"{scope}/batchnorm/{theirs}" in found:
        result[f"{module}.bn.{ours}"] = found[f"{scope}/batchnorm/{theirs}"]
  if "softmax/weights" in found:
    result["fc.weight"] = found["softmax/weights"].T
  if "softmax/biases" in found:
    result["fc.bias"] = found["softmax/biases"]
  return result
