"""PyTorch's files and safetensors, read without running what they hold."""

import io
import os
import pathlib
import pickletools
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from opcodes import SCALAR, called, legacy, mapping, state_dict, zipped

from jaxgen.errors import UserError
from jaxgen.interop import tensor_files
from jaxgen.interop.tensors import lazy
from jaxgen.interop.torchwrite import name, number, text

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
EXPECTED = np.load(GOLDEN / "torch_expected.npz")
DTYPES = {"half": "f2", "double": "f8", "long": "i8", "byte": "u1", "bool": "?"}
DTYPES["bf16"] = ml_dtypes.bfloat16


def same(tensors):
  """Whether these are the tensors that torch had."""
  assert set(tensors) == set(EXPECTED.files)
  for k, t in tensors.items():
    a = t.read()
    assert a.dtype == t.dtype == np.dtype(DTYPES.get(k, "f4")), k
    assert a.shape == t.shape == EXPECTED[k].shape, k
    np.testing.assert_array_equal(a.astype(EXPECTED[k].dtype), EXPECTED[k])


@pytest.mark.parametrize("which", ["zip", "legacy", "protocol_4"])
def test_reads_what_torch_wrote(which):
  """Views of shared storages, transposed or strided; all dtypes; 0-d, empty."""
  same(tensor_files.read(GOLDEN / f"torch_{which}.pt"))


@pytest.mark.parametrize("which", ["nested", "nested_legacy"])
def test_a_key_selects_one_of_several_sets(which):
  path = GOLDEN / f"torch_{which}.pt"
  with pytest.raises(UserError, match=r"--key.*model \(2 tensors\), ema \(2"):
    tensor_files.read(path)
  with pytest.raises(UserError, match="no tensors under --key=emma"):
    tensor_files.read(path, "emma")
  model, ema = tensor_files.read(path, "model"), tensor_files.read(path, "ema")
  # "module." is gone
  assert {k: v.shape for k, v in model.items()} == {"weight": (2, 4), "bias": (2,)}
  for k in model:  # so was it made
    np.testing.assert_allclose(ema[k].read(), model[k].read() + 1, rtol=1e-6)
  assert set(tensor_files.read(path, "opt/state/0")) == {"step", "exp_avg"}


@pytest.mark.parametrize("end", ["pt", "safetensors"])
def test_written_files_come_back(end, tmp_path):
  path = tmp_path / "new" / f"x.{end}"
  tensors = tensor_files.read(GOLDEN / "torch_zip.pt")
  tensor_files.write(path, tensors)
  same(tensor_files.read(path))
  before = path.read_bytes()
  tensor_files.write(path, tensor_files.read(path))  # also over itself
  assert path.read_bytes() == before
  assert [p.name for p in path.parent.iterdir()] == [f"x.{end}"]
  (tmp_path / "usual").touch()
  assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_written_state_dict_looks_as_torch_wants_it(tmp_path):
  """Facts of torch/serialization.py, PyTorch 2.13."""
  tensor_files.write(tmp_path / "x.pt", {"w": lazy(np.float32([[1, 2]]))})
  with zipfile.ZipFile(tmp_path / "x.pt") as f:
    assert not f.testzip()
    entries = {e.filename: e for e in f.infolist()}
    assert f.read("archive/byteorder") == b"little"
    assert f.read("archive/version") == b"3\n"
    assert f.read("archive/data/0") == np.float32([1, 2]).tobytes()
    index = f.read("archive/data.pkl")
  assert {e.compress_type for e in entries.values()} == {zipfile.ZIP_STORED}
  raw, e = (tmp_path / "x.pt").read_bytes(), entries["archive/data/0"]
  assert raw.index(np.float32([1, 2]).tobytes(), e.header_offset) % 64 == 0

  opcodes = [(code.name, argument) for code, argument, _ in pickletools.genops(index)]
  ordered = [("GLOBAL", "collections OrderedDict"), ("EMPTY_TUPLE", None), ("REDUCE", None)]
  ints = lambda *n: [("BININT", i) for i in n]
  assert [code for code in opcodes if code[0] != "MARK"] == [
    ("PROTO", 2), *ordered, ("BINUNICODE", "w"),
    ("GLOBAL", "torch._utils _rebuild_tensor_v2"),
    ("BINUNICODE", "storage"), ("GLOBAL", "torch FloatStorage"),
    ("BINUNICODE", "0"), ("BINUNICODE", "cpu"), *ints(2), ("TUPLE", None),
    ("BINPERSID", None), *ints(0, 1, 2), ("TUPLE", None), *ints(2, 1),
    ("TUPLE", None), ("NEWFALSE", None), *ordered, ("TUPLE", None),
    ("REDUCE", None), ("SETITEMS", None), ("STOP", None),
  ]  # fmt: skip


def test_torch_reads_what_we_write(tmp_path):
  """Where there is a Python with torch: $TORCH_PYTHON, or this one."""
  python = os.environ.get("TORCH_PYTHON", sys.executable)
  if subprocess.run([python, "-c", "import torch"], check=False, capture_output=True).returncode:
    pytest.skip("no torch")
  tensor_files.write(tmp_path / "x.pt", tensor_files.read(GOLDEN / "torch_zip.pt"))
  code = (
    "import sys, torch; d = torch.load(sys.argv[1], weights_only=True);torch.save(d, sys.argv[2])"
  )
  subprocess.run([python, "-c", code, tmp_path / "x.pt", tmp_path / "y.pt"], check=True)
  same(tensor_files.read(tmp_path / "y.pt"))


def test_a_large_file_needs_little_memory(tmp_path):
  """64 tensors of 1 MiB: read one at a time."""
  one = np.ones((512, 512), np.float32)
  for end in ("pt", "safetensors"):
    tensor_files.write(tmp_path / f"x.{end}", {f"{i}": lazy(one) for i in range(64)})
    tracemalloc.start()
    total = sum(float(t.read()[0, 0]) for t in tensor_files.read(tmp_path / f"x.{end}").values())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 64 and peak < 6 << 20


# What hostile or damaged files hold.
def asking(module, thing, argument):
  """A pickle of an object with a __reduce__."""
  return index(called(module, thing, text(argument)))


def index(body):
  return zipped(b"\x80\2" + body + b".")


def tarred():
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w") as f:
    f.addfile(tarfile.TarInfo("storages"), io.BytesIO())
  return out.getvalue()


def deep(n):
  """A list in a list in a list."""
  return index(b"]" * n + b"a" * (n - 1))


def doubled(n, times=2):
  """A list of twice a list of twice a list: 2^n in all."""
  return zipped(b"\x80\2]" + (b"q\x000](" + b"h\0" * times + b"e") * n + b".")


GOOD, OLD = state_dict(), state_dict(view=b"N")
HOSTILE = {
  "os": (asking("os", "system", "touch hacked"), "asks for os.system: ref"),
  "newer": (
    index(text("os") + text("system") + b"\x93" + text("touch hacked") + b"\x85R"),
    "os.system: refused",
  ),
  "eval": (asking("builtins", "eval", "1"), "asks for builtins.eval: ref"),
  "bytes": (asking("torch.storage", "_load_from_bytes", "x"), "refused"),
  "torch": (index(name("torch", "load")), "torch.load:"),
  "terminal": (index(name("\x1b[2J", "x")), r"asks for \\x1b\[2J.x"),
  "inst": (zipped(b"(ios\nsystem\n."), "opcode that PyTorch never writes"),
  "extension": (index(b"\x82\1"), "never writes, EXT1"),
  "call": (index(b"])R"), "call of what is no function"),
  "dtype": (zipped(b"\x80\2" + name("torch", "float32") + b")R."), "call of"),
  "build": (index(b"]}b"), "attributes for list"),
  "key": (index(b"}))s"), "tuple as a key"),
  "pairs": (index(called("collections", "OrderedDict", b"]))\x86a")), "tuple as a key"),
  "memo": (index(b"h\7"), "is damaged"),
  "underflow": (index(b"\x87"), "is damaged"),
  "no stop": (zipped(b"\x80\2]"), "is damaged"),
  "long": (index(b"X\xff\xff\xff\x7f"), "is damaged"),
  "deep": (deep(100_000), "nests deeper"),
  "laughs": (doubled(15), "no tensors"),
  "more laughs": (doubled(15, 9), "holds more than"),
  "itself": (index(b"]q\0h\0a"), "nests deeper"),
  "offset": (zipped(state_dict(offset=1)), "beyond its storage"),
  "negative": (zipped(state_dict(offset=-1)), "strange shape"),
  "shape": (zipped(state_dict(shape=(2,))), "beyond its storage"),
  "strides": (
    zipped(state_dict(shape=(2,), strides=(9,), numel=2), bytes(8)),
    "beyond its storage",
  ),
  "absurd": (zipped(state_dict(shape=(1 << 40,), strides=(0,))), "beyond its"),
  "ranks": (zipped(state_dict(shape=(1, 1))), "strange shape"),
  "many": (zipped(state_dict(shape=(1,) * 99, strides=(1,) * 99)), "strange"),
  "empty": (zipped(state_dict(shape=(0, 1 << 60), strides=(1, 1))), "strange"),
  "numel": (zipped(state_dict(numel=9)), "lacks the values of w"),
  "no values": (zipped(GOOD, None), "lacks the values of w"),
  "storage": (zipped(state_dict(kind="Quantised")), "asks for torch.Quantised"),
  "bomb": (zipped(GOOD, bytes(1 << 20), how=zipfile.ZIP_DEFLATED), "compressed"),
  "big end": (zipped(GOOD, order=b"big"), "big-endian"),
  "big old": (legacy(OLD, little=b"\x89"), "big-endian"),
  "twice": (lambda: zipped(GOOD, more=("x/a", "x/a")), "not one of PyT"),
  "other zip": (zipped(GOOD, more=("y/data.pkl",)), "not one of PyTorch's"),
  "program": (zipped(GOOD, more=("x/constants.pkl",)), "TorchScript"),
  "half a zip": (zipped(GOOD)[:-30], "damaged or cut short"),
  "old, size": (legacy(OLD, values=b"\2" + bytes(11)), "another size"),
  "old, short": (legacy(OLD, values=b"\1" + bytes(8)), "cut short"),
  "old, absent": (legacy(OLD, keys=b"].", values=b""), "lacks the values"),
  "old, strange": (legacy(OLD, keys=b"]K\7a."), "another size"),
  "a pickle": (b"\x80\2}.", "but not one of PyTorch's"),
  "no tensors": (index(b"}"), "no tensors by name"),
  "nothing": (b"", "is empty"),
  "text": (b"hello", "no file of PyTorch or safetensors"),
  "page": (b"\n<!DOCTYPE html>", "web page"),
  "pointer": (b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
  "tar": (tarred(), "tar file"),
  "header": ((99).to_bytes(8, "little") + b"{}", "is damaged"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_file_is_one_line(case, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  data, message = HOSTILE[case]
  data = data() if callable(data) else data
  (tmp_path / "x.pt").write_bytes(data)
  with pytest.raises(UserError, match=message) as e:
    tensor_files.read("x.pt")
  assert str(e.value).startswith("x.pt ") and "\n" not in str(e.value)
  assert str(e.value).isprintable()
  assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_the_cases_are_bad_by_what_they_say_alone(tmp_path):
  (tmp_path / "x.pt").write_bytes(zipped(GOOD, np.float32(3).tobytes()))
  assert tensor_files.read(tmp_path / "x.pt")["w"].read() == np.float32([3])
  (tmp_path / "y.pt").write_bytes(legacy(OLD))
  assert tensor_files.read(tmp_path / "y.pt")["w"].read() == np.float32([0])
  with pytest.raises(UserError, match="there is no file"):
    tensor_files.read(tmp_path)


def test_views_in_files_of_old(tmp_path):
  """Storages that are part of another, as PyTorch wrote before 0.4."""
  part = lambda start: b"(" + text("1") + number(start) + number(2) + b"t"
  index = state_dict(numel=3, shape=(2,), view=part(1))
  values = b"\3" + bytes(7) + np.float32([1, 2, 3]).tobytes()
  (tmp_path / "x.pt").write_bytes(legacy(index, values=values))
  assert tensor_files.read(tmp_path / "x.pt")["w"].read().tolist() == [2, 3]
  index = state_dict(numel=3, shape=(2,), view=part(2))
  (tmp_path / "x.pt").write_bytes(legacy(index, values=values))
  with pytest.raises(UserError, match="view beyond storage"):
    tensor_files.read(tmp_path / "x.pt")


def test_whole_modules_are_refused():
  with pytest.raises(UserError, match="torch.nn.modules.linear.Linear: refu"):
    tensor_files.read(GOLDEN / "torch_module.pt")


def test_a_flipped_bit_in_the_values_is_noticed(tmp_path):
  data = bytearray((GOLDEN / "torch_zip.pt").read_bytes())
  at = data.index(EXPECTED["double"].tobytes())
  data[at] ^= 1
  (tmp_path / "x.pt").write_bytes(data)
  tensors = tensor_files.read(tmp_path / "x.pt")
  tensors["half"].read()
  with pytest.raises(UserError, match="is damaged"):
    tensors["double"].read()


@pytest.mark.parametrize(
  "source", ["torch_zip.pt", "torch_legacy.pt", "torch_protocol_4.pt", "x.safetensors"]
)
def test_random_damage_never_ends_in_another_error(source, tmp_path):
  path, rng = tmp_path / "x", np.random.default_rng(0)
  if source.startswith("torch"):
    shutil.copy(GOLDEN / source, path)
  else:
    safetensors.numpy.save_file({k: EXPECTED[k] for k in ("a", "half")}, path)
  damage(path, rng)


def damage(path, rng):
  """Bytes changed or lost, in 200 ways: read, or refused by a UserError."""
  content, ends = path.read_bytes(), set()
  for i in range(200):
    data = bytearray(content)
    if i % 2:
      data[rng.integers(len(data))] = rng.integers(256)
    else:
      at = rng.integers(len(data))
      del data[at : at + int(rng.integers(1, 50))]
    path.write_bytes(data)
    try:
      ends |= {t.read().shape for t in tensor_files.read(path).values()}
    except UserError as e:
      ends.add(str(e))
  assert len(ends) > 10


def test_what_lightning_saves_beside_is_passed_over(tmp_path):
  """Classes as keys, scalars of numpy: names that stand for nothing."""
  score = called("numpy.core.multiarray", "scalar", called("numpy", "dtype", text("f8"), b"K\0"))
  encoded = called("_codecs", "encode", text("x"), text("latin1"))
  checkpoint = name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
  state = mapping({"best_model_score": SCALAR, "again": score, "bytes": encoded})
  root = {"callbacks": b"}" + checkpoint + state + b"s", "state_dict": GOOD[2:-1]}
  (tmp_path / "x.ckpt").write_bytes(zipped(b"\x80\2" + mapping(root) + b"."))
  assert list(tensor_files.sets(tmp_path / "x.ckpt")) == ["state_dict"]
  assert set(tensor_files.read(tmp_path / "x.ckpt")) == {"w"}


def test_other_names_are_not_written(tmp_path):
  with pytest.raises(UserError, match="want a name that ends in .bin, .ckpt, .pt"):
    tensor_files.write(tmp_path / "x.onnx", {})
