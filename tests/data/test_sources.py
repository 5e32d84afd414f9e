"""Digits, points, sample files, catalogue: what is in them, and errors."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf
from test_pipeline import assert_same, take

from jaxgen.data import catalogue
from jaxgen.data.points import modes
from jaxgen.data.prepare import prepare
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return str(tmp_path_factory.mktemp("data"))


def test_digits_are_scikit_learns(root):
  train = open_source("digits", "train", data_dir=root)
  test = open_source("digits", "test", data_dir=root)
  assert (len(train), len(test)) == (1438, 359)
  assert train.classes == 10 and train.shape == (8, 8, 1)
  x = np.concatenate([train.arrays()[0], test.arrays()[0]])
  y = np.concatenate([train.arrays()[1], test.arrays()[1]])
  assert x.dtype == np.uint8 and y.dtype == np.int32
  truth = load_digits()
  scaled = np.floor(truth.images * 255 / 16 + 0.5).astype(np.uint8)
  rows = lambda x, y: sorted(
    (int(label), *map(int, digit.ravel())) for digit, label in zip(x, y, strict=True)
  )
  assert rows(x, y) == rows(scaled, truth.target)
  share = np.bincount(test.arrays()[1]) / np.bincount(truth.target)
  assert abs(share - 0.2).max() < 0.01  # stratified
  assert train.fingerprint != test.fingerprint
  assert train[3]["x"].shape == (8, 8, 1) and train[3]["y"].shape == ()


def test_digits_at_another_size(root):
  source = open_source("digits", data_dir=root, size=16, channels=3)
  assert source.shape == (16, 16, 3) == source[0]["x"].shape


def test_digits_prepared_by_two_processes_at_once(tmp_path):
  code = (
    "import sys; from jaxgen.data.sources import open_source;"
    f"print(open_source('digits', data_dir={str(tmp_path)!r}).fingerprint)"
  )
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  runs = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
  results = [run.communicate(timeout=120) for run in runs]
  assert [run.returncode for run in runs] == [0, 0], results
  assert results[0] == results[1]
  assert {p.name for p in tmp_path.iterdir()} == {"digits", ".digits.lock"}


@pytest.mark.parametrize(
  "name, scale, spacing", [("ring8", 2.5, 4 * np.sin(np.pi / 8)), ("grid25", 5, 2)]
)
def test_points_follow_their_mixture(name, scale, spacing):
  centres, std = modes(f"points:{name}")
  published = {"ring8": 0.02, "grid25": 0.05}[name]
  assert std * scale == pytest.approx(published)
  apart = np.linalg.norm(centres[:, None] - centres, axis=-1)
  np.fill_diagonal(apart, np.inf)
  np.testing.assert_allclose(apart.min(1) * scale, spacing)
  source = open_source(f"points:{name}")
  x, y = source.arrays()
  assert x.shape == (100_000, 2) and x.dtype == np.float32
  assert abs(x).max() < 1 and source.classes == len(centres)
  assert (np.bincount(y) == len(x) // len(centres)).all()
  n = len(x) // len(centres)
  for k, centre in enumerate(centres):
    error = (x[y == k] - centre) / std
    assert abs(error.mean(0)).max() < 6 / np.sqrt(n)
    assert abs(np.cov(error.T) - np.eye(2)).max() < 6 * np.sqrt(2 / n)


def test_points_splits_differ_and_repeat():
  train, test = (open_source("points:ring8", s) for s in ("train", "test"))
  assert not set(map(tuple, train.x)) & set(map(tuple, test.x))
  again = open_source("points:ring8")
  assert again.fingerprint == train.fingerprint != test.fingerprint


def test_npz(tmp_path):
  x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
  path = tmp_path / "samples.npz"
  np.savez(path, x)
  source = open_source(f"npz:{path}")
  assert source.classes == 0 and source[0].keys() == {"x"}
  np.testing.assert_array_equal(source.arrays()[0], x)
  np.savez(path, x, np.array([0, 1, 2, 0, 1, 4]))
  source = open_source(f"npz:{path}")
  assert source.classes == 5 and source[5]["y"] == 4
  assert open_source(f"npz:{path}", size=4, channels=1).shape == (4, 4, 1)


IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("arrays", [
  [IMAGES.astype(np.float32)], [IMAGES[..., 0]], [IMAGES[:0]], [IMAGES, np.zeros(3, int)],
  [IMAGES, np.array([0, -1])], [np.array([{"a": 1}], object)],
])  # fmt: skip
def test_npz_of_something_else(tmp_path, arrays):
  np.savez(tmp_path / "a.npz", *arrays)
  with pytest.raises(UserError):
    open_source(f"npz:{tmp_path}/a.npz")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\3\4nonsense", None])
def test_npz_damaged(tmp_path, content):
  path = tmp_path / "a.npz"
  if content is None:  # cut short
    np.savez(path, np.zeros((9, 8, 8, 3), np.uint8))
    content = path.read_bytes()[:900]
  path.write_bytes(content)
  with pytest.raises(UserError, match="a.npz cannot be read as an .npz"):
    open_source(f"npz:{path}")


@pytest.mark.parametrize("name, hint", [
  ("digit", "did you mean digits?"), ("ring8", "did you mean points:ring8?"),
  ("point:ring8", "did you mean points:ring8?"), ("points:ring9", "ring8 and grid25"),
  ("cifar10", "tfds:NAME"), ("npz:/no/such.npz", "there is no file"),
  ("folder:/no/such", "needs a size"), ("tfds:cifar10", "jaxgen prepare tfds:cifar10"),
])  # fmt: skip
def test_errors_say_what_to_do(root, name, hint):
  with pytest.raises(UserError, match=hint.replace("?", r"\?")) as e:
    open_source(name, data_dir=root)
  assert "\n" not in str(e.value)


def test_unknown_split(root):
  for name in ("digits", "points:ring8", "npz:x.npz"):
    with pytest.raises(UserError, match="split"):
      open_source(name, "val", data_dir=root)


def test_path_without_kind(tmp_path):
  with pytest.raises(UserError, match=f"did you mean folder:{tmp_path}"):
    open_source(str(tmp_path))


def test_unwritable_cache(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="JAXGEN_DATA"):
    open_source("digits", data_dir=str(tmp_path / "file"))


class JaxgenFake(tfds.core.GeneratorBasedBuilder):
  """Like most of the catalogue: arrays as images, files by tf.io.gfile."""

  VERSION = tfds.core.Version("1.2.0")
  url_infos = {}

  def _info(self):
    features = {
      "id": tfds.features.Text(),
      "image": tfds.features.Image(shape=(None, None, 3)),
      "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    with tf.io.gfile.GFile(__file__, "rb") as file:
      seed = len(file.read()) > 0
    for i, image in enumerate(fake_images(seed)):
      yield i, {"id": f"image {i}", "image": image, "label": i % 3}


def fake_images(seed):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(20)]


def test_catalogue_prepared_and_read(root, monkeypatch):
  folder = prepare("tfds:jaxgen_fake", root)
  assert folder == prepare("tfds:jaxgen_fake", root)
  assert "tensorflow" not in sys.modules
  x = np.stack(fake_images(True))
  packed = open_source("tfds:jaxgen_fake", size=8, data_dir=root)
  monkeypatch.setattr(catalogue, "PACK_BELOW", 0)
  read = open_source("tfds:jaxgen_fake:1.2.0", size=8, data_dir=root)
  assert packed.in_memory and not read.in_memory
  for source in (packed, read):
    assert len(source) == 20 and source.classes == 3
    np.testing.assert_array_equal(source.arrays()[0], x)
    np.testing.assert_array_equal(source.arrays()[1], np.arange(20) % 3)
    again = open_source("tfds:jaxgen_fake", size=8, data_dir=root)
  assert again.fingerprint == read.fingerprint
  unpickled = copy.copy(read)  # as for a worker
  assert unpickled._records is not read._records
  np.testing.assert_array_equal(unpickled.arrays()[0], x)
  first, *others = (
    take(4, s, batch=7, seed=1, flip=True, threads=t)
    for s, t in ((packed, 0), (read, 0), (read, 2))
  )
  for other in others:
    assert_same(first, other)


def test_newest_version_and_the_one_configuration(tmp_path):
  for folder in ("a/1.9.0", "a/1.10.0", "a/2.0.0.incompleteAB", "b/c/1.0.0"):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "dataset_info.json").write_text("{}")
  assert catalogue.find("a", tmp_path).name == "1.10.0"
  assert catalogue.find("a:1.9.0", tmp_path).name == "1.9.0"
  assert catalogue.find("b", tmp_path) == tmp_path / "b/c/1.0.0"
  (tmp_path / "b/d/1.0.0").mkdir(parents=True)
  (tmp_path / "b/d/1.0.0/dataset_info.json").write_text("{}")
  with pytest.raises(UserError, match="prepared as c, d: say which"):
    catalogue.find("b", tmp_path)


def test_catalogue_errors(root):
  prepare("tfds:jaxgen_fake", root)
  for message, call in {
    "give a size": lambda: open_source("tfds:jaxgen_fake", data_dir=root),
    "has the splits train, not test": lambda: open_source("tfds:jaxgen_fake", "test", 8, root),
    "not prepared": lambda: open_source("tfds:jaxgen_fake:9.9.9", data_dir=root),
    "did you mean tfds:cifar10": lambda: prepare("tfds:cifar1O", root),
    "needs no preparation": lambda: prepare("folder:x", root),
  }.items():
    with pytest.raises(UserError, match=message):
      call()


def test_mnist_of_the_real_builder(root, monkeypatch, tmp_path):
  from tensorflow_datasets.image_classification import mnist

  rng = np.random.default_rng(0)
  x = {n: rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (30, 10)}
  files = {}
  for kind, n in (("train", 30), ("test", 10)):
    files[f"{kind}_data"] = tmp_path / f"{kind}-x"
    files[f"{kind}_data"].write_bytes(bytes(16) + x[n].tobytes())
    files[f"{kind}_labels"] = tmp_path / f"{kind}-y"
    files[f"{kind}_labels"].write_bytes(bytes(8) + bytes(np.arange(n) % 10))
  monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 30)
  monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 10)
  extract = lambda self, urls: {k: str(files[k]) for k in urls}
  monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", extract)
  prepare("tfds:mnist", root)
  source = open_source("tfds:mnist", "test", data_dir=root)
  assert source.shape == (28, 28, 1) and source.classes == 10
  rows = lambda a: sorted(i.tobytes() for i in a)
  assert rows(source.arrays()[0]) == rows(x[10])


def test_workers_die_with_a_killed_trainer(tmp_path):
  script = tmp_path / "trainer.py"
  script.write_text(
    "import multiprocessing, time\n"
    "from jaxgen.data.pipeline import batches\n"
    "from jaxgen.data.sources import open_source\n"
    "if __name__ == '__main__':\n"
    "  source = open_source('points:ring8')\n"
    "  stream = batches(source, batch=8, seed=0, workers=1)\n"
    "  next(stream)\n"
    "  child, = multiprocessing.active_children()\n"
    "  print(child.pid, flush=True)\n"
    "  time.sleep(60)\n"
  )
  trainer = subprocess.Popen(
    [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  )
  worker = int(trainer.stdout.readline())
  os.kill(worker, 0)
  trainer.send_signal(signal.SIGKILL)
  trainer.wait()
  for _ in range(600):
    if not alive(worker):
      return
    time.sleep(0.1)
  os.kill(worker, signal.SIGKILL)
  raise AssertionError("the worker outlived its trainer")


def alive(pid):
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


@pytest.mark.parametrize("name", [
  "../../x", "/etc", "a/../../b", "mnist:../..", "..", "a//b", "mnist:1",
  "mnist/", "\x1b[2J", "a\nb",
])  # fmt: skip
def test_names_that_lead_elsewhere(name, tmp_path):
  (tmp_path / "x").mkdir()
  root = tmp_path / "a" / "b"
  for use in (prepare, lambda name, root: open_source(name, data_dir=root)):
    with pytest.raises(UserError, match="is no name of a data set"):
      use(f"tfds:{name}", str(root))


def test_without_a_network_it_says_so_at_once(tmp_path, monkeypatch):
  from jaxgen.data import prepare as module

  module.unreachable.cache_clear()
  monkeypatch.setattr(module.urllib.request, "getproxies", dict)
  calls = []

  def refuse(address, timeout):
    calls.append(address)
    raise OSError(-2, "Name or service not known")

  monkeypatch.setattr(module.socket, "create_connection", refuse)
  for root in (tmp_path / "fresh", tmp_path / "begun"):
    if root.name == "begun":
      (root / "downloads").mkdir(parents=True)
    with pytest.raises(UserError, match="storage.googleapis.com cannot be"):
      prepare("tfds:mnist", str(root))
  assert calls == [("storage.googleapis.com", 443)]
  module.unreachable.cache_clear()


def test_a_host_that_never_answers(monkeypatch):
  from jaxgen.data import prepare as module

  wait = threading.Event()

  def hang(*_):
    wait.wait(9)
    raise OSError

  monkeypatch.setattr(module.socket, "create_connection", hang)
  assert "no answer in 0.1 s" in module.unreachable("nowhere", 443, 0.1)
  wait.set()
