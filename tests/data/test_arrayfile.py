"""Files of arrays by strangers: a line, at once, and no memory."""

import io
import os
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxgen.data import arrayfile
from jaxgen.data.npz import open_npz
from jaxgen.errors import UserError
from jaxgen.evaluation.protocols import PROTOCOLS
from jaxgen.evaluation.reference import open_images, open_reference

X = np.arange(9 * 4 * 4 * 3, dtype=np.uint8).reshape(9, 4, 4, 3)


def npy(text, data=b"", version=1, length=None):
  """An .npy file with any header."""
  text = text.encode("latin-1") + b"\n"
  length = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
  return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def header(shape="(9, 4, 4, 3)", descr="'|u1'", order="False"):
  return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def packed(data, kind=zipfile.ZIP_STORED, name="arr_0.npy"):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", kind) as archive:
    archive.writestr(name, data)
  return file.getvalue()


def patched(data, offset, size, entry=b"PK\1\2"):
  """With another length in the directory of a .zip."""
  at = data.rindex(entry) + offset
  return data[:at] + struct.pack("<I", size) + data[at + 4 :]


WHOLE = npy(header(), X.tobytes())
RAW = {  # of an .npy, also inside of an .npz
  "terabytes": npy(header("(4000000, 1024, 1024, 3)"), X.tobytes()),
  "more than 64 bits": npy(header(f"({10**18}, {10**18}, 9, 3)")),
  "very long numbers": npy(header(f"({'9' * 9000}, 4, 4, 3)")),
  "one row too few": npy(header(), X[1:].tobytes()),
  "negative": npy(header("(-9, 4, 4, 3)"), X.tobytes()),
  "a product": npy(header("(3*3, 4, 4, 3)"), X.tobytes()),
  "a call": npy(header("(exit(), 4, 4, 3)"), X.tobytes()),
  "many axes": npy(header(f"({'1, ' * 60})"), b"1"),
  "deep": npy(header("(" * 9000)),
  "deep minus": npy("-" * 9000 + "1"),
  "no header": npy(""),
  "open string": npy("{'descr': '|u1"),
  "no shape": npy("{'descr': '|u1', 'fortran_order': False}", X.tobytes()),
  "no dtype": npy("{'fortran_order': False, 'shape': (1, )}", X.tobytes()),
  "long header": npy(header(), X.tobytes(), 2, 2**32 - 1),
  "header beyond the end": npy(header(), b"", 1, 60_000),
  "version 9": npy(header(), X.tobytes(), 9),
  "objects": npy(header(descr="'|O'"), X.tobytes()),
  "records": npy(header(descr="[('a', '|O'), ('b', '<f4')]"), X.tobytes()),
  "dates": npy(header(descr="'<M8'"), X.tobytes()),
  "voids": npy(header(descr="'|V3'"), X.tobytes()),
  "unknown dtype": npy(header(descr="'<f3'"), X.tobytes()),
  "huge text": npy(header("(1,)", descr="'<U999999999'"), X.tobytes()),
  "huger text": npy(header("(1,)", descr="'<U99999999999999'"), X.tobytes()),
  "numpy's magic alone": b"\x93NUMPY",
  "a cut header": WHOLE[:40],
}
LIE = patched(packed(npy(header("(40000000, 4, 4, 3)"), X.tobytes())), 24, 1_920_000_200)
DEFLATED = packed(npy(header("(80000000, 4, 4, 3)"), X.tobytes()), zipfile.ZIP_DEFLATED)
FILES = {
  **{f"npy: {k}": v for k, v in RAW.items()},
  **{f"npz: {k}": packed(v) for k, v in RAW.items()},
  **{f"deflated: {k}": packed(v, zipfile.ZIP_DEFLATED) for k, v in RAW.items()},
  "bytes for an array": packed(b"hello, I am no array"),
  "empty member": packed(b""),
  "bzip2": packed(WHOLE, zipfile.ZIP_BZIP2),
  "lzma": packed(WHOLE, zipfile.ZIP_LZMA),
  "encrypted": (lambda d: d[: (at := d.rindex(b"PK\1\2") + 8)] + b"\1" + d[at + 1 :])(
    packed(WHOLE)
  ),
  "a lie of length": LIE,
  "a lie of both lengths": patched(LIE, 20, 1_920_000_200),
  "a lie in deflate": patched(DEFLATED, 24, 3_840_000_200),
  "an offset beyond": patched(packed(WHOLE), 42, 4_000_000_000),
  "a pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
  "empty": b"",
  "text": b"hello",
  "a cut archive": packed(WHOLE)[:-30],
  "a directory alone": b"PK\5\6" + bytes(18),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("read", ["samples", "reference", "data"])
def test_hostile_files_end_in_a_line_at_once(read, case, tmp_path):
  path = tmp_path / ("x.npy" if case.startswith("npy") else "x.npz")
  path.write_bytes(FILES[case])
  how = PROTOCOLS["adm"]
  readers = {
    "samples": lambda: list(open_images(str(path), how, span="unit").read(0, 9)),
    "reference": lambda: open_reference(str(path), how),
    "data": lambda: open_npz(str(path), "train", None, None),
  }
  tracemalloc.start()
  start = time.process_time()
  with pytest.raises(UserError) as error:
    readers[read]()
  assert time.process_time() - start < 1
  assert tracemalloc.get_traced_memory()[1] < 20e6
  tracemalloc.stop()
  assert "\n" not in str(error.value) and "x.np" in str(error.value)
  assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "none"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
  path = tmp_path / "x.npz"
  {
    "fifo": lambda: os.mkfifo(path),
    "folder": path.mkdir,
    "device": lambda: path.symlink_to("/dev/zero"),
    "none": lambda: None,
  }[kind]()
  with pytest.raises(UserError, match="x.npz"):
    arrayfile.names(path)
  with pytest.raises(UserError, match="x.npz"):
    arrayfile.stored(path, "arr_0")


@pytest.mark.parametrize("text", [
  header(), header().replace("'", '"'), header("(9L, 4L, 4L, 3L)"), header("(9,4,4,3)") + " " * 40,
  "{'shape': (9, 4, 4, 3), 'fortran_order': False, 'descr': '|u1'}",
])  # fmt: skip
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_writers_are_read(text, version, tmp_path):
  (tmp_path / "x.npy").write_bytes(npy(text, X.tobytes(), version))
  stored = arrayfile.stored(tmp_path / "x.npy", "arr_0")
  np.testing.assert_array_equal(stored.whole(), X)
  np.testing.assert_array_equal(np.concatenate(list(stored.rows(2, 9, 100))), X[2:])


@pytest.mark.parametrize("array", [
  X, np.asfortranarray(X), np.zeros((0, 3), ">i4"), np.float16([[1, 2.5]]), np.array("text"),
  np.int64(7), np.array([True, False]), np.arange(9.0),
])  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(array, save, tmp_path):
  save(tmp_path / "x.npz", a=array)
  assert arrayfile.names(tmp_path / "x.npz") == ["a"]
  got = arrayfile.stored(tmp_path / "x.npz", "a").whole()
  assert got.dtype == array.dtype
  np.testing.assert_array_equal(got, array)


def test_what_memory_cannot_hold_is_not_asked_for(tmp_path, monkeypatch):
  np.savez(tmp_path / "x.npz", X)
  monkeypatch.setattr(arrayfile, "memory", lambda: 100)
  with pytest.raises(UserError, match="more than there is"):
    arrayfile.stored(tmp_path / "x.npz", "arr_0").whole()


@pytest.mark.parametrize(
  "labels", [np.arange(8), -np.arange(9), np.arange(9.0), np.full(9, 2**40), np.zeros((9, 1), int)]
)
def test_labels_that_are_none(labels, tmp_path):
  np.savez(tmp_path / "x.npz", X, labels)
  with pytest.raises(UserError, match="labels"):
    open_npz(str(tmp_path / "x.npz"), "train", None, None)
