"""What is of s3:// alone; the rest is tested on both kinds of bucket beside this."""

import importlib

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxgen import files
from jaxgen.bucket import objects
from jaxgen.checkpoint import s3_arrays
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.sampling import output

pytestmark = pytest.mark.parametrize("bucket", ["s3"], indirect=True)


def test_samples_and_data(bucket, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
  output.write(f"{bucket.folder}/x.npz", x, np.arange(4), {"seed": 0})
  source = open_source(f"npz:{bucket.folder}/x.npz")
  assert np.array_equal(source.arrays()[0], x)


def test_an_object_that_is_empty_is_there(bucket):
  path = files.path(bucket.folder) / "x"
  files.write_bytes(path, b"")
  assert path.is_file() and path.read_bytes() == b"" and not files.holds_bytes(path)


def test_orbax_itself_reads_and_writes_arrays(bucket):
  """As a client of its own would, without any of our checkpoints."""
  s3_arrays.enable(bucket.folder)
  tree = {"a": np.arange(6.0).reshape(2, 3), "b": {"c": np.int32(7)}}
  client = ocp.PyTreeCheckpointer()
  client.save(files.path(bucket.folder) / "tree", tree)
  restored = client.restore(files.path(bucket.folder) / "tree")
  np.testing.assert_array_equal(restored["a"], tree["a"])
  assert restored["b"]["c"] == 7
  assert any("/d/" in name for name in bucket.names(f"{bucket.folder[12:]}/tree"))


@pytest.mark.parametrize(
  "build",
  [
    lambda directory, name=None: {"driver": "ocdbt", "base": {"driver": "file", "path": directory}},
    lambda directory, name=None: {"driver": "ocdbt", "base": directory},
    lambda path: {},
    None,
  ],
)
def test_an_orbax_that_asks_otherwise_is_refused(bucket, build, monkeypatch):
  module = importlib.import_module(s3_arrays.MODULE)
  monkeypatch.setattr(module, s3_arrays.NAME, build)
  with pytest.raises(UserError, match="orbax-checkpoint .* keeps no arrays on s3://: install"):
    s3_arrays.enable(bucket.folder)
  s3_arrays.enable("gs://bucket/x")
  assert getattr(module, s3_arrays.NAME) is build


def test_a_server_that_heeds_no_conditions_is_refused(bucket, monkeypatch):
  """As older ones of other makers: nothing could be locked."""
  monkeypatch.setattr(bucket.server, "heeds", False)
  with pytest.raises(OSError, match="heeds no conditions of writes"):
    files.check_writable(bucket.folder)
  assert bucket.names(bucket.folder[12:]) == []


@pytest.mark.parametrize(
  "status, code, line",
  [
    (301, "PermanentRedirect", "another region: set AWS_REGION"),
    (400, "AuthorizationHeaderMalformed", "another region: set AWS_REGION"),
    (400, "ExpiredToken", "no valid credentials"),
    (403, "SignatureDoesNotMatch", "no valid credentials"),
    (503, "SlowDown", "throttled time and again"),
  ],
)
def test_errors_by_name(bucket, impatient, status, code, line):
  bucket.faults.status, bucket.faults.code = status, code
  for ask in (
    lambda: objects.read(f"{bucket.folder}/x"),
    lambda: files.check_writable(bucket.folder),
    lambda: files.local(f"{bucket.folder}/x"),
  ):
    with pytest.raises(OSError, match=line):
      ask()
