"""What a training says of itself, beside its checkpoints' arrays.

It may be a stranger's, or edited: its fields are checked where it is read, in
`latest`, and whoever reads it may rely on the types.
"""

import math
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxgen import forms
from jaxgen.checkpoint import restore
from jaxgen.errors import UserError, guarding
from jaxgen.forms import Each, Whole

LARGEST = 2**28  # numbers in one example: an image of 9,000 x 9,000
NAMED = {"name": str}  # see `build`
STEPS = NAMED | {"sampler?": NAMED}
FORM = {
  "step": Whole(0),
  "config": {
    "seed?": Whole(0),
    "steps": Whole(1),
    "batch": Whole(1),
    "data": {"source": str, "split": str, "size?": Whole(0), "crop?": float, "classes?": Whole(0)},
    "model": STEPS | {"model?": STEPS},
    "optim": Each(NAMED),
    "ema": Each(NAMED),
  },
  "data": {
    "name": str,
    "classes": Whole(0),
    "shape": [Whole(1)],
    "dtype": {"uint8", "int16", "float32"},
    "rate?": Whole(1),
    "fingerprint?": str,
  },
  "seconds?": float,
  "peak_bytes?": float,
  "metrics?": Each(float),
  "goodput?": {"time?": float, "seconds?": Each(float)},
  "import?": {"source": str, "file": str, "licence?": str},
}


def latest(workdir: epath.PathLike) -> dict[str, Any]:
  """That of the newest sound checkpoint.

  Raises:
    UserError: there is none, or not as a training writes it.
  """
  return check_meta(restore.latest_meta(workdir), workdir)


def check_meta(meta: dict[str, Any], workdir: epath.PathLike) -> dict[str, Any]:
  """`meta`, if it is as a training writes it: else a UserError."""
  why = forms.misfit(meta, FORM)
  if not why and math.prod(meta["data"]["shape"]) > LARGEST:
    why = f"data.shape is {meta['data']['shape']}: no example is so large"
  if why:
    step = meta["step"] if isinstance(meta.get("step"), int) else "STEP"
    raise UserError(f"{workdir}/checkpoints/{step}/meta is not as a training writes it: {why}")
  return meta


def settings(meta: Mapping[str, Any]) -> ConfigDict:
  """Its config, in which everything is that `checked` has seen to."""
  with guarding("the config of this checkpoint is none"):
    config = ConfigDict(meta["config"])
  config.data.size = config.data.get("size") or 0
  return config
