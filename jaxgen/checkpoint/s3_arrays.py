"""Orbax's arrays on s3://, where it has none by itself.

TensorStore reads and writes them there, and Orbax has but to be told: every
array of its checkpoints is opened by what `build_kvstore_tspec` says of a
folder. That knows gs:// and folders, so of s3://bucket/a it is asked what it
would say of gs://bucket/a, and the store in its answer is changed for ours.
"""

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

from jaxgen.bucket import objects
from jaxgen.errors import UserError

MODULE = "orbax.checkpoint._src.serialization.tensorstore_utils"
NAME = "build_kvstore_tspec"
S3, GS = "s3://", "gs://"
Builder = Callable[..., dict[str, Any]]


def enable(folder: str | os.PathLike) -> None:
  """If a folder is on s3://, Orbax keeps arrays there from now on.

  Raises:
    UserError: this Orbax is built otherwise than those that were tried.
  """
  if objects.split(folder)[0] != "s3":
    return
  try:
    module = importlib.import_module(MODULE)
    known = getattr(module, NAME)
    if hasattr(known, "on_s3"):
      return
    build = with_s3(known)
    base = build(f"{S3}bucket/a", "b")["base"]
    there = (base["driver"], base["bucket"]) == ("s3", "bucket")
  except (ImportError, AttributeError, LookupError, TypeError, ValueError):
    there = False
  if not there:
    version = importlib.metadata.version("orbax-checkpoint")
    raise UserError(
      f"orbax-checkpoint {version} keeps no arrays on s3://: install 0.12.8, or mount the bucket"
    )
  setattr(module, NAME, build)


def with_s3(known: Builder) -> Builder:
  """Orbax's function from a folder to a spec of TensorStore's, for s3:// too."""

  @functools.wraps(known)
  def build(directory, *args, **how):
    if not str(directory).startswith(S3):
      return known(directory, *args, **how)
    return on_s3(known(GS + str(directory).removeprefix(S3), *args, **how))

  build.on_s3 = True
  return build


def on_s3(spec: Any) -> Any:
  """A spec of TensorStore's in which every store of Google's is one of Amazon's."""
  if isinstance(spec, list):
    return [on_s3(s) for s in spec]
  if not isinstance(spec, dict):
    return spec
  if str(spec.get("driver")).startswith("gcs"):
    return objects.spec("s3", spec["bucket"]) | {"path": spec["path"]}
  return {key: on_s3(value) for key, value in spec.items()}
