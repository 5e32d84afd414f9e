"""Write the latents of a data set once, for models of latents to learn from.

  jaxgen encode --workdir CODEC --data folder:/my/images --flip --out latents
  jaxgen train --config configs/dit.py:XL-2 --workdir W \
    --config.model.codec_workdir=CODEC --config.data.source=latents:latents

Sizes, channels and, by default, the data are those of the codec's training; its
averaged weights write. Of a Gaussian q(z | x) mean and standard deviation are
kept, so that every epoch draws other samples. Whoever is interrupted goes on by
the same command.
"""

import collections
import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from jaxgen import core, sharding
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.checkpoint.pretrained import check_data, codec_digest
from jaxgen.data import latent_rows
from jaxgen.data.arrays import Example, Source
from jaxgen.data.image import ahead
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError, refusing
from jaxgen.models.latent import is_number, write
from jaxgen.monitor.progress import Progress
from jaxgen.sampling.trained import Trained, load_trained, sampling_state

EVERY = 10  # seconds between what is safe on the disk
DTYPES = ("float16", "float32")


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of a trained codec")
  flag("data", None, "source of the images, such as folder:/my/images; default: the codec's own")
  flag("split", None, "of the images: train or test; default: what the codec was trained on")
  flag("out", None, "folder of the latents; read as --config.data.source=latents:FOLDER")
  flags.DEFINE_bool("flip", False, "also latents of every image's mirror image", flag_values=values)
  flag("dtype", "float16", f"of numbers on the disk: {' or '.join(DTYPES)}")
  flags.DEFINE_integer("batch", 64, "images at a time, on all devices together", flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not (values.workdir and values.out):
    raise UserError("encode needs --workdir=CODEC and --out=FOLDER")
  if values.dtype not in DTYPES:
    raise UserError(f"--dtype={values.dtype}: want {' or '.join(DTYPES)}")
  count = encode(
    values.workdir,
    pathlib.Path(values.out).expanduser(),
    data=values.data,
    split=values.split,
    flip=values.flip,
    dtype=values.dtype,
    batch=values.batch,
  )
  print(f"latents of {count:,} images -> {values.out}")


def encode(
  workdir: str,
  out: pathlib.Path,
  *,
  data: str | None = None,
  split: str | None = None,
  flip: bool = False,
  dtype: str = "float16",
  batch: int = 64,
) -> int:
  """Writes the latents of all images of a source -> their number.

  Args:
    workdir: Of the codec.
    out: A new folder, or one in which the same was begun.
    data: As config.data.source; None: that of the codec.
    split: Of it; None: that of the codec.
    flip: Whether mirror images are encoded, too.
    dtype: "float16" or "float32", of numbers; codes are whole numbers.
    batch: Images at a time.

  Raises:
    UserError: It is no codec, or not of such images; the folder is not free, or
      the disk too small.
  """
  trained, about = load_trained(workdir, any_kind=True), latest(workdir)
  if core.trait(trained.model, "encode") is None:
    raise UserError(f"{workdir} holds a {type(trained.model).__name__}, which is no codec")
  spec = images_spec(settings(about).data.to_dict(), data, split)
  source = open_split(spec)
  if flip and len(source.shape) != 3:
    raise UserError(f"--flip mirrors images, and {source.name} holds none")
  with refusing(f"--workdir={workdir}"):
    check_data(trained.model, trained.data, source)
  mesh = sharding.make_mesh()
  batch += -batch % mesh.size
  program, leaves = compiled(trained, source, mesh, batch, dtype)
  meta = {
    "version": latent_rows.VERSION,
    "count": len(source),
    "copies": 1 + flip,
    "leaves": leaves,
    "codec": {
      "workdir": str(pathlib.Path(workdir).absolute()),
      "step": trained.step,
      "digest": codec_digest(trained.params, trained.stats),
    },
    "data": {
      "config": spec,
      "name": source.name,
      "shape": source.shape,
      "dtype": str(np.dtype(source.dtype)),
      "classes": source.classes,
      "class_names": source.class_names,
      "fingerprint": source.fingerprint,
    },
  }
  writer = latent_rows.Writer(out, meta)
  if writer.count < len(source):
    fill(writer, source, program, flip, batch)
  return len(source)


def images_spec(own: dict[str, Any], data: str | None, split: str | None) -> dict[str, Any]:
  """config.data of the images: the codec's, of another source or split."""
  own |= {"split": split or own["split"]}
  if data:
    # What chooses among images of one source means nothing for another.
    own |= {"source": data, "split": split or "train", "fraction": 1.0, "holdout": 0.0}
  return own | {"flip": False, "crop": 0.0}


def compiled(
  trained: Trained, source: Source, mesh: jax.sharding.Mesh, batch: int, dtype: str
) -> tuple[Any, dict[str, Any]]:
  """f(batch) -> arrays by name on the host; and {name: (shape of a row, dtype)}."""
  state = sharding.replicate(sampling_state(trained.step, trained.params, trained.stats), mesh)

  def program(state: core.State, example: core.Batch) -> dict[str, jax.Array]:
    example = core.on_device(example)
    return write(trained.model, state, example["x"], example.get("y"))

  shapes = {"x": jax.ShapeDtypeStruct((batch, *source.shape), source.dtype)}
  if source.classes:
    shapes["y"] = jax.ShapeDtypeStruct((batch,), np.int32)
  z = jax.eval_shape(program, state, shapes)
  leaves = {name: (a.shape[1:], dtype if is_number(a) else "uint16") for name, a in z.items()}
  where = sharding.batched(mesh), sharding.replicated(mesh)
  run = jax.jit(program, in_shardings=(where[1], where[0]), out_shardings=where[1])
  return lambda example: run(state, sharding.shard_batch(example, mesh)), leaves


def fill(writer: latent_rows.Writer, source: Source, program: Any, flip: bool, batch: int) -> None:
  """Writes the rows that are not there yet; the device works a batch ahead."""
  starts = range(writer.count, len(source), batch)
  bar = Progress(len(starts), batch, unit="images", stream=sys.stderr)
  synced, pending = time.monotonic(), collections.deque()
  with writer.writing(), contextlib.closing(rows(source, starts, batch)) as stream:
    for done, (n, example) in enumerate(stream, 1):
      mirror = [{**example, "x": example["x"][:, :, ::-1]}] if flip else []
      pending.append((n, example.get("y"), [program(e) for e in (example, *mirror)]))
      while len(pending) > (done < len(starts)):
        store(writer, *pending.popleft())
      bar.at(done)
      if time.monotonic() > synced + EVERY:
        writer.sync()
        synced = time.monotonic()
  bar.end()


def store(writer: latent_rows.Writer, n: int, y: np.ndarray | None, copies: list) -> None:
  """Appends the first n rows of a batch; those of its mirror images in between."""
  copies = [{k: np.asarray(a)[:n] for k, a in z.items()} for z in copies]
  z = {k: np.stack([c[k] for c in copies], 1) for k in copies[0]}
  writer.append(
    {k: a.reshape(-1, *a.shape[2:]) for k, a in z.items()}, None if y is None else y[:n]
  )


def rows(source: Source, starts: range, batch: int) -> Iterator[tuple[int, Example]]:
  """Batches from each start on, and how many rows of them count; the last is padded."""

  def read(first: int) -> tuple[int, Example]:
    indices = np.arange(first, first + batch)
    n = min(batch, len(source) - first)
    return n, source.read(np.minimum(indices, len(source) - 1))

  threads = 1 if source.in_memory else 8
  return ahead(read, starts, threads, 2 * threads)
