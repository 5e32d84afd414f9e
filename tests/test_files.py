"""Files are whole or not at all, and nobody else's are touched."""

import errno
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from jaxgen import cli, files
from jaxgen.data import cache
from jaxgen.errors import UserError
from jaxgen.evaluation import reference, weights
from jaxgen.interop import tensor_files
from jaxgen.interop.tensors import lazy
from jaxgen.metrics.distances import Gaussian
from jaxgen.monitor import pictures
from jaxgen.sampling import output, upscale

X = np.zeros((4, 8, 8, 3), np.uint8)
GAUSS = {"pool": Gaussian(np.zeros(2), np.eye(2), 9)}
CARD = {"protocol": {}, "features": {}, "reference": {}}
# Everybody who writes a file that may be anywhere.
WRITERS = {
  "x.json": lambda p: files.write_json(p, {"a": 1}),
  "x.html": lambda p: files.write_text(p, "text"),
  "y.png": lambda p: pictures.save_png(p, X[0], {"a": 1}),
  "x.png": lambda p: output.write(str(p), X, None, {}),
  "x.npz": lambda p: output.write(str(p), X, np.arange(4), {}),
  "o.png": lambda p: upscale.save(p, Image.fromarray(X[0]), None, {}),
  "r.npz": lambda p: reference.save_statistics(p, GAUSS, "pool", CARD),
  "x.pt": lambda p: tensor_files.write(p, {"a": lazy(np.ones(9))}),
  "x.safetensors": lambda p: tensor_files.write(p, {"a": lazy(np.ones(9))}),
}
each_writer = pytest.mark.parametrize("name", WRITERS)


@each_writer
def test_what_fails_at_the_end_leaves_the_old_file_and_no_draft(tmp_path, name, monkeypatch):
  path = tmp_path / name
  path.write_bytes(b"old")

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(files.Path, "replace", full)
  with pytest.raises((OSError, UserError), match="No space left"):
    WRITERS[name](path)
  assert os.listdir(tmp_path) == [name] and path.read_bytes() == b"old"


@each_writer
def test_a_link_is_followed_and_stays(tmp_path, name):
  (tmp_path / "far").mkdir()
  far, path = tmp_path / "far" / "real", tmp_path / name
  path.symlink_to(far)
  for _ in range(2):  # dangling, then not
    WRITERS[name](path)
    assert path.is_symlink() and far.stat().st_size > 3
  assert sorted(os.listdir(tmp_path)) == sorted(["far", name])
  assert os.listdir(tmp_path / "far") == ["real"]


@each_writer
def test_a_folder_in_the_way_is_left(tmp_path, name):
  (tmp_path / name).mkdir()
  (tmp_path / name / "mine").write_text("mine")
  with pytest.raises((OSError, UserError), match=f"{name}"):
    WRITERS[name](tmp_path / name)
  assert (tmp_path / name / "mine").read_text() == "mine"
  assert os.listdir(tmp_path) == [name]


@each_writer
def test_names_as_long_as_they_may_be_and_folders_to_be_made(tmp_path, name):
  suffix = name.partition(".")[2]
  path = tmp_path / "a" / "b" / f"{'x' * (254 - len(suffix))}.{suffix}"
  WRITERS[name](path)
  assert os.listdir(path.parent) == [path.name]
  usual = tmp_path / "usual"
  usual.touch()
  assert path.stat().st_mode == usual.stat().st_mode
  path.chmod(0o640)
  WRITERS[name](path)
  assert path.stat().st_mode & 0o777 == 0o640


FULL = """
import sys, resource
sys.path.insert(0, sys.argv[3])
import test_files, pathlib
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for name, write in test_files.WRITERS.items():
  if name in sys.argv[2].split(","):
    try:
      write(pathlib.Path(sys.argv[1]) / name)
    except Exception as e:
      print(name, type(e).__name__, e)
"""


def test_a_disk_without_room(tmp_path):
  names = [n for n in WRITERS if not n.endswith((".json", ".html"))]
  out = subprocess.run(
    [sys.executable, "-c", FULL, tmp_path, ",".join(names), os.path.dirname(__file__)],
    capture_output=True,
    text=True,
  )
  assert out.stderr == ""
  assert [line.split()[0] for line in out.stdout.splitlines()] == names
  assert os.listdir(tmp_path) == []


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
  pipe, heard = tmp_path / "pipe", []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
  reader.start()
  files.write_text(pipe, "words")
  reader.join()
  assert heard == [b"words"] and pipe.is_fifo()
  files.write_json("/dev/null", {})
  assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


def test_an_interrupt_leaves_nothing(tmp_path):
  with pytest.raises(KeyboardInterrupt), files.atomic(tmp_path / "x") as draft:
    draft.write_text("half")
    raise KeyboardInterrupt
  assert os.listdir(tmp_path) == []


def test_a_download_is_whole_or_not_there(tmp_path):
  (tmp_path / "source").write_text("other bytes")
  wanted = weights.INCEPTION._replace(url=f"file://{tmp_path / 'source'}")
  for url in (wanted.url, f"file://{tmp_path / 'nothing'}"):
    with pytest.raises(UserError, match="cannot be downloaded"):
      weights.download(wanted._replace(url=url), tmp_path / "w" / "x.pth")
    assert os.listdir(tmp_path / "w") == []


def test_all_that_is_kept_lies_in_the_users_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv("JAXGEN_DATA", raising=False)
  assert cache.root() == tmp_path / "jaxgen" / "data"
  assert cli.own_folder().parent == tmp_path / "jaxgen" / "xla"
  assert files.cache() == tmp_path / "jaxgen"
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  assert cache.root() == tmp_path / "home" / ".cache" / "jaxgen" / "data"
  monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "d"))
  assert cache.root() == tmp_path / "d"
  assert cache.root(str(tmp_path / "e")) == tmp_path / "e"
