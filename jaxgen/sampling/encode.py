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
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxgen import core, files, sharding
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.checkpoint.pretrained import check_data, codec_digest
from jaxgen.data import latent_rows
from jaxgen.data.arrays import Example, Source
from jaxgen.data.image import ahead
from jaxgen.data.sources import open_split
from jaxgen.errors import UserError, refusing
from jaxgen.models.latent import row_dtype, write
from jaxgen.monitor.progress import Progress
from jaxgen.sampling.trained import Trained, load_trained, sampling_state

EVERY = 10  # seconds between what is safe on the disk
DTYPES = ("float16", "float32")
Program = Callable[[Example], dict[str, jax.Array]]
IN_BUCKETS = ("workdir", "data", "out")  # flags that take gs://bucket/name


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
    values.out,
    data=values.data,
    split=values.split,
    flip=values.flip,
    dtype=values.dtype,
    batch=values.batch,
  )
  print(f"latents of {count:,} images -> {values.out}")


def encode(
  workdir: str,
  out: files.Address,
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
    out: A new folder, or one in which the same was begun. One in a bucket is made in the
      user's cache, and copied when it is whole.
    data: As config.data.source; None: that of the codec.
    split: Of it; None: that of the codec.
    flip: Whether mirror images are encoded, too.
    dtype: "float16" or "float32", of numbers; codes are whole numbers.
    batch: Images at a time.

  Raises:
    UserError: It is no codec, or not of such images; the folder is not free, or
      the disk too small.
  """
  trained = load_trained(workdir, any_kind=True)
  if core.trait(trained.model, "encode") is None:
    raise UserError(f"{workdir} holds a {type(trained.model).__name__}, which is no codec")
  spec = images_spec(settings(latest(workdir)).data, data, split)
  source = open_split(spec)
  if flip and len(source.shape) != 3:
    raise UserError(f"--flip mirrors images, and {source.name} holds none")
  with refusing(f"--workdir={workdir}"):
    check_data(trained.model, trained.data, source)
  mesh = sharding.make_mesh()
  batch += -batch % mesh.size
  program, leaves = compiled(trained, source, mesh, batch, flip, dtype)
  meta = {"version": latent_rows.VERSION, "copies": 1 + flip, "leaves": leaves}
  latent_rows.check_bucket(out)
  writer = latent_rows.Writer(files.scratch(out), meta | provenance(workdir, trained, source, spec))
  if writer.count < len(source):
    fill(writer, source, program, batch)
  files.publish(writer.folder, out, last=latent_rows.META)
  return len(source)


def images_spec(own: Mapping[str, Any], data: str | None, split: str | None) -> dict[str, Any]:
  """config.data of the images: the codec's, of another source or split."""
  spec = {**own, "split": split or own["split"], "flip": False, "crop": 0.0}
  if data:
    # What chooses among images of one source means nothing for another.
    spec |= {"source": data, "split": split or "train", "fraction": 1.0, "holdout": 0.0}
  return spec


def provenance(
  workdir: str, trained: Trained, source: Source, spec: dict[str, Any]
) -> dict[str, Any]:
  """What meta.json says of the codec and of the images."""
  return {
    "count": len(source),
    "codec": {
      "workdir": str(files.path(workdir).absolute()),
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


def compiled(
  trained: Trained, source: Source, mesh: jax.sharding.Mesh, batch: int, flip: bool, dtype: str
) -> tuple[Program, dict[str, Any]]:
  """f(examples) -> arrays [batch, copies, ...] by name; {name: (shape of a row, dtype)}."""
  state = sharding.everywhere(sampling_state(trained.step, trained.params, trained.stats), mesh)

  def program(state: core.State, examples: core.Batch) -> dict[str, jax.Array]:
    examples = core.on_device(examples)
    x, y = examples["x"], examples.get("y")
    copies = [write(trained.model, state, x, y) for x in ([x, x[:, :, ::-1]] if flip else [x])]
    return jax.tree.map(lambda *z: jnp.stack(z, 1), *copies)

  shapes = core.batch_shapes(source.shape, source.dtype, source.classes, batch)
  z = jax.eval_shape(program, state, shapes)
  rows, everywhere = sharding.batched(mesh), sharding.replicated(mesh)
  run = jax.jit(program, in_shardings=(everywhere, rows), out_shardings=everywhere)
  leaves = {name: (a.shape[2:], row_dtype(a, dtype)) for name, a in z.items()}
  return lambda examples: run(state, sharding.shard_batch(examples, mesh)), leaves


def fill(writer: latent_rows.Writer, source: Source, program: Program, batch: int) -> None:
  """Writes the rows that are not there yet; the device works a batch ahead."""
  starts = range(writer.count, len(source), batch)
  bar = Progress(len(starts), batch, unit="images", stream=sys.stderr)
  synced, pending = time.monotonic(), collections.deque()
  with writer.writing(), contextlib.closing(rows(source, starts, batch)) as stream:
    for done, (n, examples) in enumerate(stream, 1):
      pending.append((n, examples.get("y"), program(examples)))
      while len(pending) > (done < len(starts)):
        n, y, z = pending.popleft()
        writer.append({k: np.asarray(a)[:n] for k, a in z.items()}, None if y is None else y[:n])
      bar.at(done)
      if time.monotonic() > synced + EVERY:
        writer.sync()
        synced = time.monotonic()
  bar.end()


def rows(source: Source, starts: range, batch: int) -> Iterator[tuple[int, Example]]:
  """Batches from each start on, and how many rows of them count; the last is padded."""

  def read(first: int) -> tuple[int, Example]:
    indices = np.arange(first, first + batch)
    n = min(batch, len(source) - first)
    return n, source.read(np.minimum(indices, len(source) - 1))

  threads = 1 if source.in_memory else 8
  return ahead(read, starts, threads, 2 * threads)
