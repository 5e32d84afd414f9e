"""Objects in a bucket: gs://bucket/a/b and s3://bucket/a/b.

TensorStore's key-value stores do the talking: they have credentials, retries
with backoff and conditional writes, and Orbax moves arrays through them, so
that one set of settings holds for all. An object appears whole or not at all,
and is never changed in part.

The environment: GOOGLE_APPLICATION_CREDENTIALS or what `gcloud auth
application-default login` left, TENSORSTORE_GCS_HTTP_URL for another server
than Google's; AWS_* as for any program, AWS_ENDPOINT_URL for another server.
"""

import errno
import functools
import os
import re
import secrets
from collections.abc import Iterable
from typing import Any

import tensorstore as ts

RETRIES = {"max_retries": 32, "initial_delay": "1s", "max_delay": "32s"}  # 15 minutes
FIRST_RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "16s"}  # 30 seconds
MISSING = b"\2"  # TensorStore's generation of what is not there

REASONS = (  # in what TensorStore says -> error number, what to do
  (
    "'401'|UNAUTHENTICATED|credentials file|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken"
    "|InvalidToken",
    errno.EACCES,
    "no valid credentials: run `gcloud auth application-default login`, or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS (for s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
  ),
  (
    "'403'|PERMISSION_DENIED|Failed to parse response metadata",
    errno.EACCES,
    "denied: give this account the right to list, read and write objects there; "
    "without credentials it is nobody's",
  ),
  ("'404'|NOT_FOUND", errno.ENOENT, "there is no such bucket"),
  (
    "'301'|AuthorizationHeaderMalformed|PermanentRedirect",
    errno.EINVAL,
    "the bucket lies in another region: set AWS_REGION",
  ),
  (
    "'429'|'503'|SlowDown",
    errno.EHOSTUNREACH,
    "throttled time and again: wait, or ask of another bucket",
  ),
  ("retry attempts failed", errno.EHOSTUNREACH, "the server cannot be reached"),
  ("DEADLINE_EXCEEDED|UNAVAILABLE", errno.EHOSTUNREACH, "the server cannot be reached"),
)


def failure(error: Exception, address: str) -> OSError:
  """What TensorStore raised, as an error of the system with a line of ours."""
  text = " ".join(str(error).split())
  for pattern, number, line in REASONS:
    if re.search(pattern, text):
      return OSError(number, line, address)
  return OSError(errno.EIO, text[:200], address)


def split(address: str | os.PathLike) -> tuple[str, str, str]:
  """ "gs://bucket/a/b" -> ("gs", "bucket", "a/b")."""
  scheme, _, rest = os.fspath(address).partition("://")
  bucket, _, key = rest.partition("/")
  if not bucket:
    raise OSError(errno.EINVAL, f"an address is {scheme}://BUCKET/NAME", os.fspath(address))
  return scheme, bucket, key


@functools.cache
def store(scheme: str, bucket: str) -> ts.KvStore:
  """The objects of a bucket, asked for something once to see that it answers.

  Who cannot be reached at all is known within half a minute. Later a request is
  tried for a quarter of an hour, for a training has something to lose.
  """
  try:
    _open(scheme, bucket, FIRST_RETRIES).read(".jaxgen", byte_range=slice(0, 1)).result()
  except ValueError as e:
    if "OUT_OF_RANGE" not in str(e):  # an empty object
      raise failure(e, f"{scheme}://{bucket}") from e
  return _open(scheme, bucket, RETRIES)


def spec(scheme: str, bucket: str) -> dict[str, Any]:
  """Where TensorStore finds a bucket, by the environment."""
  where = {"driver": {"gs": "gcs", "s3": "s3"}[scheme], "bucket": bucket}
  if scheme == "s3" and os.environ.get("AWS_ACCESS_KEY_ID"):  # else it complains of files
    where |= {"aws_credentials": {"type": "environment"}}
  if scheme == "s3" and (server := os.environ.get("AWS_ENDPOINT_URL")):
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    where |= {"endpoint": server, "aws_region": region or "us-east-1"}
  if scheme == "s3":  # without a look beforehand, which another writer may outrun
    where |= {"use_conditional_write": True}
  return where


def _open(scheme, bucket, retries):
  context = ts.Context({"gcs_request_retries": retries, "s3_request_retries": retries})
  try:
    return ts.KvStore.open(spec(scheme, bucket), context=context).result()
  except ValueError as e:
    raise failure(e, f"{scheme}://{bucket}") from e


def read(address: str | os.PathLike, start: int | None = None, stop: int | None = None) -> bytes:
  """An object, or its bytes from `start` to `stop`.

  Raises:
    FileNotFoundError: there is no such object.
    OSError: it cannot be read, or has no such bytes.
  """
  result = _read(address, start, stop)
  if result.state != "value":
    raise FileNotFoundError(errno.ENOENT, "there is no such object", os.fspath(address))
  return bytes(result.value)


def read_parts(address: str | os.PathLike, starts: Iterable[int], size: int) -> list[bytes]:
  """Parts of an object, each of `size` bytes, asked for all at once."""
  scheme, bucket, key = split(address)
  place = store(scheme, bucket)
  under_way = [place.read(key, byte_range=slice(i, i + size)) for i in starts]
  parts = []
  for future in under_way:
    try:
      result = future.result()
    except ValueError as e:
      raise failure(e, os.fspath(address)) from e
    if result.state != "value":
      raise FileNotFoundError(errno.ENOENT, "there is no such object", os.fspath(address))
    parts.append(bytes(result.value))
  return parts


def generation(address: str | os.PathLike) -> bytes:
  """What changes with every change of an object; MISSING if it is not there."""
  return _read(address, 0, 0).stamp.generation


def _read(address, start, stop):
  scheme, bucket, key = split(address)
  nothing = (start, stop) == (0, 0)
  if scheme == "s3" and nothing:
    stop = 1  # S3 knows no empty ranges
  part = None if (start, stop) == (None, None) else slice(start, stop)
  try:
    return store(scheme, bucket).read(key, byte_range=part).result()
  except ValueError as e:
    if nothing and "OUT_OF_RANGE" in str(e):  # an empty object
      return _read(address, None, None)
    raise failure(e, os.fspath(address)) from e


def write(
  address: str | os.PathLike, content: bytes, if_generation: bytes | None = None
) -> bytes | None:
  """Writes an object.

  Args:
    address: Its name.
    content: All of it.
    if_generation: Only if this is its generation: MISSING for a new one.

  Returns:
    Its new generation; None: it was another one, and is left as it was. A write
    whose answer was lost, and that was therefore repeated, is known again.

  Raises:
    OSError: it cannot be written.
  """
  scheme, bucket, key = split(address)
  try:
    stamp = store(scheme, bucket).write(key, content, if_equal=if_generation).result()
  except ValueError as e:
    raise failure(e, os.fspath(address)) from e
  if stamp.generation:
    return stamp.generation
  there = _read(address, None, None)
  return there.stamp.generation if there.state == "value" and there.value == content else None


def names_below(address: str | os.PathLike) -> list[str]:
  """Names of all objects below a folder, relative to it, in order.

  To TensorStore an empty list and a refused one may be the same: before an
  empty one is believed the folder's own name is read, which is refused in words.
  """
  scheme, bucket, key = split(address)
  start = f"{key.rstrip('/')}/" if key else ""
  span = ts.KvStore.KeyRange(start, start[:-1] + "0" if start else "")
  try:
    keys = store(scheme, bucket).list(span, strip_prefix_length=len(start.encode())).result()
  except ValueError as e:
    _read(address, 0, 0)
    raise failure(e, os.fspath(address)) from e
  if not keys:
    _read(address, 0, 0)
  return sorted(name for k in keys if (name := k.decode(errors="surrogateescape")))


def remove(addresses: Iterable[str]) -> None:
  """Removes objects, all at once; OSError if one cannot be.

  There is no condition to it: S3 has none, and TensorStore, which looks first,
  removes what it could not look at.
  """
  under_way = []
  for address in addresses:
    scheme, bucket, key = split(address)
    under_way.append((address, store(scheme, bucket).write(key, None)))
  for address, future in under_way:
    try:
      future.result()
    except ValueError as e:
      raise failure(e, address) from e


def copy_tree(folder: str | os.PathLike, target: str | os.PathLike) -> None:
  """Copies all objects below a folder, through this machine, one by one."""
  for name in names_below(folder):
    write(f"{os.fspath(target)}/{name}", read(f"{os.fspath(folder)}/{name}"))


def check_access(folder: str | os.PathLike) -> None:
  """OSError unless objects in a folder can be written, listed and removed."""
  name = f".jaxgen-{secrets.token_hex(8)}.tmp"
  address = f"{os.fspath(folder)}/{name}"
  write(address, b"jaxgen looks whether it may write here.\n")
  try:
    if name not in names_below(folder):
      raise OSError(errno.EACCES, "denied: objects can be written there, and not listed", address)
    if write(address, b"", MISSING) is not None:
      line = "the server heeds no conditions of writes (If-None-Match), so nothing can be locked"
      raise OSError(errno.ENOTSUP, line, address)
  finally:
    remove([address])


def retries() -> int:
  """How often a request was made once more: throttled, or nobody answered."""
  metrics = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/")
  return sum(m["values"][0]["value"] for m in metrics if m["name"].endswith("/retries"))
