"""Weights are found, checked and read, out of either kind of file."""

import gzip
import hashlib
import io
import json
import pathlib
import tarfile

import jax
import numpy as np
import pytest
from inception_weights import golden, saved, state_dict
from tensorboardX.proto.tensor_pb2 import TensorProto

from jaxgen.errors import UserError
from jaxgen.evaluation import weights
from jaxgen.nets import inception

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SCOPES = json.loads((GOLDEN / "inception_scopes.json").read_text())


def field(number, value):
  """One field of a protocol buffer."""

  def varint(n):
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])

  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  return varint(number << 3 | 2) + varint(len(value)) + value


def node(name, array):
  """A constant, as TensorFlow writes it."""
  shape = b"".join(field(2, field(1, n)) for n in array.shape)
  tensor = field(1, 1) + field(2, shape) + field(4, np.ascontiguousarray(array).tobytes())
  attributes = field(5, field(1, b"dtype") + field(2, field(6, 1))) + field(
    5, field(1, b"value") + field(2, field(8, tensor))
  )
  return field(1, field(1, name.encode()) + field(2, b"Const") + attributes)


def frozen(tensors):
  """A graph under TensorFlow's names, of tensors by PyTorch's."""
  parts = [field(1, field(1, b"input") + field(2, b"Placeholder"))]
  kinds = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
  }
  scopes = {module: scope for scope, module in SCOPES.items()}
  for name, value in tensors.items():
    module, _, kind = name.rpartition(".")
    if module == "fc":
      parts.append(node(f"softmax/{'biases' if kind == 'bias' else 'weights'}", value.T))
    elif module.endswith(".conv"):
      parts.append(
        node(scopes[module.removesuffix(".conv")] + "/conv2d_params", value.transpose(2, 3, 1, 0))
      )
    else:
      parts.append(node(scopes[module.removesuffix(".bn")] + f"/batchnorm/{kinds[kind]}", value))
  return b"".join(parts)


def test_scopes_are_the_references():
  # Of torch-fidelity's utils/util_convert_inception_weights.py.
  assert weights.scopes() == SCOPES and len(SCOPES) == 94


def test_both_kinds_of_file_hold_the_same(tmp_path):
  tensors = state_dict()
  data = frozen(tensors)
  (tmp_path / "graph.pb").write_bytes(data)
  with tarfile.open(tmp_path / "inception.tgz", "w:gz", compresslevel=0) as f:
    for name, part in ("LICENSE", b"a"), ("./" + weights.GRAPH, data):
      entry = tarfile.TarInfo(name)
      entry.size = len(part)
      f.addfile(entry, io.BytesIO(part))
  extra = tensors | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.int64(3)}
  saved(tmp_path / "inception.pth", {"module." + k: np.asarray(v) for k, v in extra.items()})
  expected = inception.folded(tensors)
  for name in "graph.pb", "inception.tgz", "inception.pth":
    result = weights.inception(tmp_path / name)
    jax.tree.map(np.testing.assert_array_equal, result.params, expected)
    assert result.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert result.file == name and not result.published
  (tmp_path / "inception.tgz").unlink()
  assert set(weights.frozen_inception(weights.constants(data))) == set(golden()[1]["state_dict"])


def test_constants_that_tensorflow_wrote():
  # tf_constants.pb is TensorFlow 2.21's own serialisation of a small graph.
  result = weights.constants((GOLDEN / "tf_constants.pb").read_bytes())
  rng = np.random.default_rng(0)
  assert set(result) == {"scope/weights", "scope/alike", "scalar", "empty"}
  np.testing.assert_array_equal(result["scope/weights"], rng.normal(size=(4, 3)).astype(np.float32))
  np.testing.assert_array_equal(result["scope/alike"], np.full(3, 0.25))
  assert result["scalar"] == 7.5 and result["empty"].shape == (0, 3)


def test_damaged_graphs_end_in_one_line(tmp_path):
  graph = (GOLDEN / "tf_constants.pb").read_bytes()
  rng, complaints = np.random.default_rng(0), set()
  for i in range(len(graph) + 3000):
    data = bytearray(graph[:i] if i < len(graph) else graph)
    for at in rng.integers(0, len(graph), 3 if i >= len(graph) else 0):
      data[at] = rng.integers(256)
    try:
      weights.constants(bytes(data))
    except ValueError as e:  # and nothing else
      complaints.add(str(e))
  assert len(complaints) > 5
  (tmp_path / "graph.pb").write_bytes(graph[:-1])
  with pytest.raises(UserError, match=r"graph.pb is no frozen .* cut short$"):
    weights.inception(tmp_path / "graph.pb")
  (tmp_path / "graph.pb").write_bytes(graph)
  with pytest.raises(UserError, match=r"there is no \S+\.weight$"):
    weights.inception(tmp_path / "graph.pb")


def test_graphs_cannot_ask_for_memory():
  huge = (
    field(1, 1)
    + field(2, b"".join(field(2, field(1, 1 << 30)) for _ in range(3)))
    + field(4, bytes(4))
  )
  with pytest.raises(ValueError, match="another size"):
    weights.tensor(TensorProto.FromString(huge))
  with pytest.raises(ValueError, match="too long"):
    weights.varint(bytes([255] * 20), 0)


def test_graphs_and_archives_that_promise_too_much(tmp_path):
  alike = field(1, 1) + field(2, field(2, field(1, 1 << 23))) + field(5, bytes(4))
  with pytest.raises(ValueError, match="another size"):
    weights.tensor(TensorProto.FromString(alike))
  with pytest.raises(ValueError, match="more nodes"):
    weights.constants(field(1, b"") * (weights.NODES + 1))
  path = tmp_path / "inception.tgz"

  def refused(why):
    with pytest.raises(UserError, match=why) as e:
      weights.inception(path)
    assert "\n" not in str(e.value)

  with tarfile.open(path, "w:gz") as f:
    for i in range(weights.ENTRIES + 1):
      f.addfile(tarfile.TarInfo(f"{i}"))
  refused("holds more than TensorFlow's")
  entry = tarfile.TarInfo(weights.GRAPH)
  entry.size = 1 << 40  # which are not there
  path.write_bytes(gzip.compress(entry.tobuf() + bytes(1 << 16)))
  refused("holds more than TensorFlow's")
  data = bytearray(gzip.compress(np.random.default_rng(0).bytes(4096)))
  for i in range(20, 4000, 40):  # of what is compressed
    path.write_bytes(data[:i] + b"\xff\xff\xff" + data[i:])
    refused("no frozen graph")


def test_files_that_are_something_else(tmp_path):
  def refused(name, why, data=None):
    if data is not None:
      (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=why) as e:
      weights.inception(tmp_path / name)
    assert "\n" not in str(e.value)

  refused("none.pth", "there is no file")
  refused("empty.pth", "is empty", b"")
  refused("page.pth", "web page", b"<html>")
  refused("other.pb", "no frozen graph", b"<html>")
  refused("not.tgz", "no frozen graph", b"\x1f\x8b nonsense")
  with tarfile.open(tmp_path / "other.tgz", "w:gz"):
    pass
  refused("other.tgz", "there is no classify_image_graph_def.pb in it")
  saved(tmp_path / "torchvision.pth", {"fc.weight": np.zeros((1000, 4), np.float32)})
  refused("torchvision.pth", "torchvision's")
  part = {k: v for k, v in state_dict().items() if "Mixed_7" not in k}
  saved(tmp_path / "part.pth", part)
  refused("part.pth", "there is no Mixed_7")
  saved(
    tmp_path / "shape.pth",
    state_dict() | {"Mixed_5b.branch_pool.conv.weight": np.zeros((32, 192, 3, 3))},
  )
  refused("shape.pth", "Mixed_5b.branch_pool: .*3, 3.*not.*1, 1")


@pytest.fixture
def small(tmp_path, monkeypatch):
  """A published file of a few bytes, and where it would be kept."""
  source = tmp_path / "source.pth"
  source.write_bytes(b"weights")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("TORCH_HOME", raising=False)
  monkeypatch.delenv("JAXGEN_SMALL", raising=False)
  published = weights.Published(
    "small weights",
    "small.pth",
    source.as_uri(),
    hashlib.sha256(b"weights").hexdigest(),
    "JAXGEN_SMALL",
    "--small",
    ("theirs.pth",),
  )
  return published, source, tmp_path / "cache/jaxgen/weights/small.pth"


def test_weights_are_downloaded_once(small):
  published, source, cached = small
  assert weights.find(published) == cached and cached.read_bytes() == b"weights"
  source.unlink()
  assert weights.find(published) == cached
  assert [p.name for p in cached.parent.iterdir()] == [cached.name]


def test_what_pytorch_has_downloaded_is_taken(small, tmp_path):
  published, source, cached = small
  source.unlink()
  theirs = tmp_path / "cache/torch/hub/checkpoints/theirs.pth"
  theirs.parent.mkdir(parents=True)
  theirs.write_bytes(b"weights")
  assert weights.find(published) == theirs and not cached.exists()


def test_damaged_weights_are_not_taken(small):
  published, source, cached = small
  source.write_bytes(b"weight")
  with pytest.raises(UserError, match="another checksum"):
    weights.find(published)
  assert not list(cached.parent.iterdir())
  cached.write_bytes(b"weight")
  with pytest.raises(UserError, match="remove it"):
    weights.find(published)


def test_without_a_network_it_says_what_to_fetch(small):
  published, source, cached = small
  source.unlink()
  with pytest.raises(UserError) as e:
    weights.find(published)
  for word in published.url, str(cached), "--small=FILE":
    assert word in str(e.value)
  assert "\n" not in str(e.value)


def test_the_environment_names_a_file(small, monkeypatch, tmp_path):
  published, _, _ = small
  monkeypatch.setenv("JAXGEN_SMALL", str(tmp_path / "mine.pth"))
  assert weights.find(published) == tmp_path / "mine.pth"
  with pytest.raises(UserError, match=r"mine.pth: wanted are small weights"):
    weights.load(published, None, dict, dict)


def test_published_files_carry_their_checksum():
  # pytorch-fid's file says how its checksum begins.
  assert weights.INCEPTION.sha256[:8] in weights.INCEPTION.name
  assert all(
    len(w.sha256) == 64 and w.url.endswith(w.name) for w in (weights.INCEPTION, weights.DINOV2)
  )
