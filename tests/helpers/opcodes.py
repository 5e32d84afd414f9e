"""Files of PyTorch and of NVLabs, put together from opcodes of pickles.

As PyTorch, and the reference's code with PyTorch 1.7, write them.
"""

import io
import struct
import zipfile

import numpy as np

from jaxgen.interop.torchwrite import ORDERED, name, number, numbers, text

# Who runs this leaves a file behind.
SOURCE = "open('hacked', 'w').close()\nclass Net: pass\n"


def mapping(items):
  """A dict of pickled values."""
  return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def called(module, thing, *arguments):
  return name(module, thing) + b"(" + b"".join(arguments) + b"tR"


def binbytes(data):
  return b"B" + struct.pack("<I", len(data)) + data


def identity(
  numel,
  view=b"",
  *,
  key=text("0"),  # noqa: B008
  kind=name("torch", "FloatStorage"),  # noqa: B008
  word=text("storage"),  # noqa: B008
):
  """The persistent id of a storage; files of old have a view in it."""
  return b"(" + word + kind + key + text("cpu") + numel + view + b"tQ"


def rebuilt(storage, shape, strides, offset=b"K\0"):
  """A tensor within a storage."""
  parts = storage, offset, shape, strides, b"\x89", ORDERED
  return called("torch._utils", "_rebuild_tensor_v2", *parts)


def state_dict(*, shape=(1,), strides=(1,), offset=0, numel=1, kind="Float", view=b""):
  """The index of one tensor "w"."""
  storage = identity(number(numel), view, kind=name("torch", f"{kind}Storage"))
  tensor = rebuilt(storage, numbers(shape), numbers(strides), number(offset))
  return b"\x80\2}" + text("w") + tensor + b"s."


def zipped(index, values=bytes(4), order=b"little", how=zipfile.ZIP_STORED, more=()):
  """PyTorch's file since 1.6."""
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", how) as f:
    f.writestr("x/data.pkl", index)
    f.writestr("x/byteorder", order)
    if values is not None:
      f.writestr("x/data/0", values)
    for entry in more:
      f.writestr(entry, b"")
  return out.getvalue()


def legacy(index, little=b"\x88", keys=b"]X\1\0\0\x000a.", values=b"\1\0\0\0\0\0\0\0" + bytes(4)):
  """PyTorch's file before."""
  magic = b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\2M\xe9\3."
  machine = b"\x80\2}" + text("little_endian") + little + b"s."
  return magic + machine + index + b"\x80\2" + keys + values


# NVLabs' pickles of modules.


def alone(body):
  """A pickle that is a file by itself."""
  return b"\x80\3" + body + b"."


def stored(values, index=None):
  """torch.save of a storage, as tensors' storages are pickled."""
  kind = name("torch", {"f2": "HalfStorage"}.get(values.dtype.str[1:], "FloatStorage"))
  index = index or b"\x80\2" + identity(number(values.size), b"N", kind=kind) + b"."
  return legacy(
    index, values=struct.pack("<q", values.size) + np.asarray(values, order="C").tobytes()
  )


def tensor(values, data=None, shape=None):
  shape = values.shape if shape is None else shape
  strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
  data = binbytes(stored(values) if data is None else data)
  storage = called("torch.storage", "_load_from_bytes", data)
  return rebuilt(storage, numbers(shape), numbers(strides), number(0))


def parameter(values):
  return called("torch._utils", "_rebuild_parameter", tensor(values), b"\x88", ORDERED)


BUFFERS = ("w_avg", "noise_const", "resample_filter", "freqs", "phases")
SCALAR = called(
  "numpy.core.multiarray",
  "scalar",
  called("numpy", "dtype", text("f8"), b"K\0", b"K\1")
  + b"(K\3" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
  b"C\x08" + bytes(8),
)  # fmt: skip


def state_of(tensors):
  """A module's __dict__, of its tensors by name."""
  here = {k: v for k, v in tensors.items() if "." not in k}
  below = {}
  for k, v in tensors.items():
    child, _, inner = k.partition(".")
    if inner:
      below.setdefault(child, {})[inner] = v
  parameters = b"".join(text(k) + parameter(v) for k, v in here.items() if k not in BUFFERS)
  if parameters:
    parameters = b"(" + parameters + text("skipped") + b"Nu"
  return mapping({
    "training": b"\x89",
    "_parameters": ORDERED + parameters,
    "_buffers": mapping({k: tensor(v) for k, v in here.items() if k in BUFFERS}),
    "_non_persistent_buffers_set": called("builtins", "set", b"]"),
    "_backward_hooks": ORDERED,
    "weight_gain": SCALAR,
    "_modules": mapping({k: module(v) for k, v in below.items()}),
    "_init_kwargs": name("dnnlib.util", "EasyDict") + b")\x81" + text("num_layers") + b"K\2s",
  })  # fmt: skip


def reconstructed(meta):
  return called("torch_utils.persistence", "_reconstruct_persistent_obj", meta)


def module(tensors, state=None):
  """What torch_utils/persistence.py makes of a network."""
  meta = {"type": text("class"), "version": number(6), "module_src": text(SOURCE)}
  return reconstructed(mapping(meta | {
    "class_name": text("Net"), "state": state or state_of(tensors),
  }))  # fmt: skip


def snapshot(sets):
  """A .pkl of several networks."""
  more = {"training_set_kwargs": mapping({"path": text("x")})}
  return alone(mapping({k: module(v) for k, v in sets.items()} | more))
