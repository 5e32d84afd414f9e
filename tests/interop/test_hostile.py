"""Hostile checkpoints end in one line, soon, and in little memory."""

import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
from opcodes import (
  alone,
  called,
  identity,
  legacy,
  mapping,
  module,
  rebuilt,
  reconstructed,
  snapshot,
  state_dict,
  stored,
  zipped,
)
from test_nvlabs import ONE, WEIGHTS
from test_tensor_files import GOOD, OLD

from jaxgen.interop.torchwrite import ORDERED, name, number, text

HERE = pathlib.Path(__file__).parents[1]
SECONDS, MEGABYTES = 60, 2000  # of a file; libraries take most of the memory


def read(files, tmp_path, seconds=SECONDS, megabytes=MEGABYTES):
  """Reads files in a process of their own -> {name: (end, text, seconds)}."""
  folder = tmp_path / "files"
  folder.mkdir()
  for file, data in files.items():
    (folder / file).write_bytes(data)
  done = subprocess.run(
    [sys.executable, HERE / "helpers" / "reader.py", folder, str(seconds), str(megabytes)],
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
    env=os.environ | {"PYTHONPATH": str(HERE.parent), "OPENBLAS_NUM_THREADS": "1"},
  )
  ends = {}
  for line in done.stdout.splitlines():
    file, end = json.JSONDecoder().raw_decode(line)
    ends[file] = json.loads(line[end:].strip() or f'["crash {done.returncode}", "", 0.0]')
  assert len(ends) == len(files) or "crash" in str(ends), done.stderr[-2000:]
  return ends


# Values as opcodes.
N = 100_000
DEEP = b")" + b"\x85" * N  # ((((..))))
DOUBLED = b")" + b"q\1h\1\x86" * 60  # 2^60 in all
HUGE = b"\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20)
LARGE = b"](" + b"N" * N + b"eq\2"  # a list of N
TUPLE = b"(" + b"N" * N + b"tq\2"
FULL = b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(N)) + b"uq\2"
LONG = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
NAMESPACE = name("argparse", "Namespace") + b")R"


def index(body):
  """A file whose index is `body`, beside a storage of one float."""
  return zipped(b"\x80\4" + body + b".")


def shaped(shape, strides=b")", storage=identity(number(1)), offset=b"K\0"):  # noqa: B008
  """A tensor of a made-up shape."""
  return rebuilt(storage, shape, strides, offset)


def old(keys, numel=b"\1" + bytes(7)):
  """A file of old, with other keys of storages."""
  return legacy(OLD, keys=keys + b".", values=numel + bytes(4))


def old_storage(storage):
  return legacy(b"\x80\2}" + text("w") + shaped(b")", storage=storage) + b"s.")


BIG = b"\x8a\x09" + (1 << 70).to_bytes(9, "little")
VALUES = {
  "deep": DEEP, "doubled": DOUBLED, "huge": HUGE, "big": BIG, "list": b"]",
  "dict": b"}", "none": b"N", "tuple": b")", "bytes": b"C\1\xff",
  "surrogate": b"X\3\0\0\0\xed\xb0\x80", "float": b"G\x7f\xf8" + bytes(6),
  "long": LONG,
}  # fmt: skip
ORDERED_DICT = name("collections", "OrderedDict")
# Where a value of a wrong kind may stand.
SLOTS = {
  "module": lambda v: index(v + text("x") + b"\x93"),
  "name": lambda v: index(text("torch") + v + b"\x93"),
  "key": lambda v: index(b"}" + v + b"Ns"),
  "call": lambda v: index(v + b")R"),
  "arguments": lambda v: index(ORDERED_DICT + v + b"R"),
  "pairs": lambda v: index(ORDERED_DICT + v + b"\x85R"),
  "pair": lambda v: index(ORDERED_DICT + b"]" + v + b"N\x86a\x85R"),
  "size": lambda v: index(name("torch", "Size") + v + b"\x85R"),
  "device": lambda v: index(name("torch", "device") + v + b"\x85R"),
  "state": lambda v: index(NAMESPACE + v + b"b"),
  "identity": lambda v: index(v + b"Q"),
  "word": lambda v: index(identity(number(1), word=v)),
  "kind": lambda v: index(identity(number(1), kind=v)),
  "storage": lambda v: index(identity(number(1), key=v)),
  "numel": lambda v: index(identity(v)),
  "offset": lambda v: index(shaped(b")", offset=v)),
  "shape": lambda v: index(shaped(v)),
  "strides": lambda v: index(shaped(b")", v)),
  "dims": lambda v: index(shaped(v + b"\x85", v + b"\x85")),
  "tensor": lambda v: index(shaped(b")", storage=v)),
  "value": lambda v: index(b"}" + text("w") + v + b"s"),
  "root": index,
  "old keys": old,
  "old key": lambda v: old(b"]" + v + b"a"),
  "old numel": lambda v: old_storage(identity(v, b"N")),
  "old view": lambda v: old_storage(identity(number(1), v)),
  "old machine": lambda v: legacy(OLD, little=v),
  "old magic": lambda v: b"\x80\2" + v + b"." + legacy(OLD),
  "parameters": lambda v: alone(module({}, mapping({"_parameters": v}))),
  "modules": lambda v: alone(module({}, mapping({"_modules": v}))),
  "child": lambda v: alone(
    module({}, b"}" + text("_modules") + b"}" + v + module({"w": ONE}) + b"ss")
  ),
  "bytes": lambda v: alone(called("torch.storage", "_load_from_bytes", v)),
  "scalar": lambda v: alone(called("numpy.core.multiarray", "scalar", v)),
  "meta": lambda v: alone(reconstructed(v)),
}
ALONE = {"parameters", "modules", "child", "bytes", "scalar", "meta"}


def test_values_of_every_kind_in_every_place(tmp_path):
  """None hangs, fills the memory, overflows the stack or goes unnoticed."""
  files = {
    f"{slot}, {kind}" + (".pkl" if slot in ALONE else ".pt"): make(value)
    for (slot, make), (kind, value) in itertools.product(SLOTS.items(), VALUES.items())
  }
  ends = read(files, tmp_path, seconds=10)
  wrong = {k: v for k, v in ends.items() if v[0] not in ("refused", "read")}
  assert not wrong and len(ends) == len(files)
  assert all(text.isprintable() and len(text) < 1000 for _, text, _ in ends.values())
  slow = {k: s for k, (_, _, s) in ends.items() if s > 5}
  assert not slow


def test_short_programs_do_not_run_for_long(tmp_path):
  """What is made once and copied, merged or called with a million times."""
  again = 300_000
  small = stored(np.zeros(64, np.float32))
  nested = b"B" + struct.pack("<I", len(small)) + small + b"q\2"
  size, device = name("torch", "Size") + b"q\3", name("torch", "device") + b"q\3"
  tensor = name("torch._utils", "_rebuild_tensor_v2") + b"q\3" + identity(number(1)) + b"q\4"
  sixteen = b"0}(" + b"".join(text(str(i) * 90) + b"h\2" for i in range(16)) + b"uq\2"
  four = mapping({"_modules": mapping({str(i): b"h\2" for i in range(4)})}) + b"q\3"
  modules = name("torch.nn.modules.container", "ModuleList") + b")\x81"
  load = name("torch.storage", "_load_from_bytes") + b"q\3"
  files = {
    "merged": index(FULL + NAMESPACE + b"h\2b" * again),
    "called": index(TUPLE + device + b"h\2R" + b"0h\3h\2R" * again),
    "sized": index(LARGE + size + b"0h\3h\2\x85R" * again),
    "letters": index(LONG + b"q\2" + size + b"h\3h\2\x85R" * 1000),
    "ordered": index(
      b"](" + b"NN\x86" * N + b"eq\2" + ORDERED_DICT + b"q\3" + b"0h\3h\2\x85R" * again
    ),
    "shapes": index(TUPLE + tensor + b"h\3(h\4K\0h\2h\2tR0" * again),
    "hashes": index(HUGE + b"q\2}" + b"h\2Ns" * again),
    "alike": index(LONG + b"q\2" + LONG + b"q\3}" + b"h\2Nsh\3Ns" * again),
    "hashed": old(b"])" + b"\x85" * 1_500_000 + b"a"),
    "ordered, deep": index(ORDERED + (b"q\2" + ORDERED + text("a") + b"h\2s") * 60_000),
    "paths": index(b"}" + text("w") + shaped(b")") + b"sq\2" + sixteen * 12),
    "modules.pkl": alone(module({"w": ONE}) + b"q\2" + b"0" + four + modules + b"h\3b" * again),
    "loaded.pkl": alone(nested + load + b"h\3h\2\x85R0" * again + b"N"),
    "pushed.pkl": alone(b"]" * (3 << 20)),
  }
  ends = read(files, tmp_path)
  assert {k: v for k, v in ends.items() if v[0] != "refused"} == {}, ends


def safe(index, values=bytes(16), length=None):
  """A .safetensors."""
  index = index if isinstance(index, bytes) else json.dumps(index).encode()
  return struct.pack("<Q", length or len(index)) + index + values


def floats(shape, *offsets, dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


TWICE = json.dumps({"a": floats([4], 0, 16)})[1:-1]
SAFE = {
  "overlap": safe({"a": floats([2], 0, 8), "b": floats([2], 4, 12)}),
  "hole": safe({"a": floats([2], 8, 16)}),
  "beyond": safe({"a": floats([200], 0, 800)}),
  "rest": safe({"a": floats([2], 0, 8)}),
  "huge": safe({"a": floats([1 << 62] * 2, 0, 16)}),
  "empty, huge": safe({"a": floats([0, 1 << 62, 1 << 62], 0, 0), "b": floats([4], 0, 16)}),
  "negative": safe({"a": floats([-4], 0, 16)}),
  "backwards": safe({"a": floats([1], 16, 0)}),
  "fraction": safe({"a": floats([4.0], 0, 16)}),
  "true": safe({"a": floats([True, 4], 0, 16)}),
  "dims": safe({"a": floats([1] * 99 + [4], 0, 16)}),
  "type": safe({"a": floats([16], 0, 16, dtype="F8_E5M2")}),
  "no type": safe({"a": floats([16], 0, 16, dtype=["F32"])}),
  "deep": safe(b'{"a":' + b"[" * N + b"]" * N + b"}"),
  "long": safe(b"{}", length=(1 << 30) - 1),
  "twice": safe(f"{{{TWICE}, {TWICE}}}".encode()),
  "list": safe(b'{"a": [1, 2]}'),
  "none": safe(b'{"a": null}'),
  "utf": safe(b'{"\xff": 1}'),
  "number": safe(b'{"a": ' + b"9" * 9999 + b"}"),
  "nan": safe(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}'),
}


def test_safetensors_that_lie(tmp_path):
  cube = shaped(b"K\1" * 3 + b"\x87", b"K\0K\7K\0\x87")
  files = {f"{k}.safetensors": v for k, v in SAFE.items()} | {
    "many": safe({f"{i}": floats([0], 0, 0) for i in range(N)}, b""),
    "surrogate": safe(b'{"\\ud800": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'),
    "alias.pt": index(mapping({f"w{i}": cube for i in range(3000)})),
  }
  ends = read(files, tmp_path)
  good = ("many", "surrogate", "alias.pt")
  want = {k: "read" if k in good else "refused" for k in files}
  assert {k: v[0] for k, v in ends.items()} == want
  assert all(text.isprintable() and len(text) < 400 for _, text, _ in ends.values())


SEEDS = {
  "zip.pt": zipped(GOOD),
  "old.pt": legacy(OLD),
  "newer.pt": index(shaped(b")") + b"q\0" + ORDERED + text("w") + b"h\0s"),
  "alone.pkl": snapshot({"G": WEIGHTS}),
}
PIECES = [
  *VALUES.values(), b"h\0", b"q\0", *(bytes([code]) for code in b"0(tRbQ\x93suea\x81\x85\x86."),
  number(1 << 40), number(-1), text("state"), text("_modules"), name("torch", "Size"), ORDERED_DICT,
]  # fmt: skip


def mutated(seed, rng):
  """Pieces of pickles put in, taken out, doubled; the zip around it whole."""
  data = bytearray(state_dict() if seed == "zip.pt" else SEEDS[seed])
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(2, len(data)))
    end = at + int(rng.integers(0, 12))
    way = rng.integers(4)
    if way == 0:
      data[at:at] = PIECES[rng.integers(len(PIECES))]
    elif way == 1:
      data[at:end] = PIECES[rng.integers(len(PIECES))]
    elif way == 2:
      data[at:at] = data[at:end] * int(rng.integers(1, 50))
    else:
      data[at] = rng.integers(256)
  return zipped(bytes(data)) if seed == "zip.pt" else bytes(data)


def test_mutated_pickles_end_in_one_line(tmp_path):
  rng, files = np.random.default_rng(0), {}
  for i, seed in zip(range(400), itertools.cycle(SEEDS), strict=False):
    files[f"{i:03d}-{seed}"] = mutated(seed, rng)
  ends = read(files, tmp_path, seconds=10)
  assert len(ends) == 400
  assert {k: v for k, v in ends.items() if v[0] not in ("refused", "read")} == {}
  assert all(text.isprintable() for _, text, _ in ends.values())
  assert len({text.partition(" ")[2] for _, text, _ in ends.values()}) > 40
