"""Objects on a server of Amazon's protocol: files, and no workdirs."""

import urllib.request

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from jaxgen import files
from jaxgen.bucket import objects
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.sampling import output


@pytest.fixture(scope="module")
def amazon():
  """An address in a bucket of that server."""
  server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  server.start()
  place = "http://{}:{}".format(*server.get_host_and_port())
  urllib.request.urlopen(urllib.request.Request(f"{place}/bucket", method="PUT")).close()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("AWS_ENDPOINT_URL", place)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
      patch.setenv(name, "none")
    yield "s3://bucket/test"
  objects.store.cache_clear()
  server.stop()


def test_objects_and_conditions(amazon):
  path = files.path(amazon) / "a" / "x"
  first = objects.write(path, b"one", objects.MISSING)
  assert first and objects.write(path, b"two", objects.MISSING) is None
  second = objects.write(path, b"two", first)
  assert objects.write(path, b"three", first) is None and path.read_bytes() == b"two"
  assert objects.generation(path) == second and objects.read(path, 1, 3) == b"wo"
  assert files.names(amazon) == ["a"] and path.is_file() and not path.parent.is_file()
  files.write_bytes(path, b"")
  assert path.is_file() and path.read_bytes() == b"" and not files.holds_bytes(path)
  files.check_writable(amazon)
  path.unlink()
  assert not path.exists() and not files.path(amazon).exists()
  with pytest.raises(OSError, match="no such bucket"):
    files.check_writable("s3://another/x")


def test_samples_and_data(amazon, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
  output.write(f"{amazon}/x.npz", x, np.arange(4), {"seed": 0})
  source = open_source(f"npz:{amazon}/x.npz")
  assert np.array_equal(source.arrays()[0], x)
  with pytest.raises(UserError, match="Orbax keeps none on s3://"):
    files.check_arrays(amazon)
