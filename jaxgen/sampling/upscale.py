"""A folder of images of any size, enlarged by a model of one size.

One program runs, on a fixed number of tiles at once, taken from as many images
as it needs.
"""

import dataclasses
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from jaxgen import files
from jaxgen.core import Key, trait
from jaxgen.data.folder import listing
from jaxgen.data.image import MAX_PIXELS, MODES, open_image, pixels, to_mode
from jaxgen.errors import UserError, printable
from jaxgen.monitor.pictures import KEY
from jaxgen.monitor.progress import Progress
from jaxgen.monitor.results import check_folder
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.tiles import Canvas, tile_noise, tile_starts
from jaxgen.sampling.trained import condition_shape


class Picture(NamedTuple):
  """An image as a model takes it, and what is to be put back.

  Attributes:
    x: uint8 [h, w, C].
    grey: Whether it has no colours, whatever C is.
    alpha: Its opacity, uint8 [h, w], if it has one.
    profile: Of its colours (ICC), if it has one.
  """

  x: np.ndarray
  grey: bool
  alpha: np.ndarray | None
  profile: bytes | None


def open_picture(path: Path, channels: int) -> Picture:
  """A stored image, turned upright by its EXIF tag, in 8 bits a channel.

  Raises:
    ValueError, OSError, or what else a broken file may do to the decoder.
  """
  with open_image(path) as image:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph and its preview
      raise ValueError(f"holds {frames} pictures: save the one you want")
    if image.width * image.height > MAX_PIXELS:
      raise ValueError(f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels")
    profile = image.info.get("icc_profile")
    image.load()  # all of it: a file that was cut short shows up here
    image = ImageOps.exif_transpose(image)
  alpha = None
  if image.has_transparency_data:
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
  grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
  if not grey and channels == 1:
    raise ValueError("is in colour, and this model makes grey images")
  x = pixels(to_mode(image, "L" if grey else "RGB"))
  x = np.repeat(x, channels, -1) if grey else x
  return Picture(x, grey, alpha, None if image.mode == "CMYK" else profile)


def finish_picture(x: np.ndarray, picture: Picture) -> Image.Image:
  """The enlarged picture, uint8 [H, W, C], in the mode of its source.

  Opacity is enlarged bicubically.
  """
  image = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
  image = image.convert("L") if picture.grey else image
  if picture.alpha is not None:
    image.putalpha(Image.fromarray(picture.alpha).resize(image.size, Image.Resampling.BICUBIC))
  return image


class Job(NamedTuple):
  """A file to be enlarged."""

  name: str  # below the folder
  source: Path
  target: Path


class Work(NamedTuple):
  """A file that is under way."""

  job: Job
  picture: Picture
  canvas: Canvas


@dataclasses.dataclass
class Report:
  """What became of a folder: names written, and why others were not."""

  done: list[str] = dataclasses.field(default_factory=list)
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)

  def check(self) -> None:
    """UserError in one line if anything was skipped."""
    if self.skipped:
      name, why = next(iter(self.skipped.items()))
      n, total = len(self.skipped), len(self.skipped) + len(self.done)
      raise UserError(f"{n} of {total} images were skipped, such as {name}: {why}")


def save(path: Path, image: Image.Image, profile: bytes | None, info: Mapping[str, Any]) -> None:
  """Writes a PNG whole or not at all, with how it was made in it."""
  chunks = PngImagePlugin.PngInfo()
  chunks.add_itxt(KEY, json.dumps(dict(info), ensure_ascii=False))
  try:
    with files.atomic(path) as draft:
      image.save(draft, "PNG", icc_profile=profile, pnginfo=chunks)
  except OSError as e:
    raise UserError(f"cannot write {path}: {e.strerror or e}") from e


def enlarge_folder(
  model: Sampler,
  src: str,
  out: str,
  *,
  factor: int,
  key: Key,
  batch: int = 16,
  overlap: int | None = None,
  labels: int | None = None,
  knobs: Mapping[str, float] | None = None,
  info: Mapping[str, Any] | None = None,
) -> Report:
  """Enlarges every image below `src` into a PNG of its name below `out`.

  Broken images are named on stderr and in the report. With a deterministic
  sampler a result depends on its image, the key and the knobs alone; with one
  that draws fresh noise (eta > 0) also on which tiles were drawn together.

  Args:
    model: An upsampler of images, its shape [S, S, C], C 1 or 3.
    src: Folder of images of any size, in subfolders too.
    out: Folder for the results, which is made.
    factor: S / s, the enlargement that the model was trained for.
    key: [].
    batch: Tiles drawn at once, at the most.
    overlap: Small pixels that neighbours share, below s; default: s // 4.
    labels: One for all, where the model wants labels.
    knobs: Of the sampler.
    info: How they were made, for the PNG files, as JSON.

  Raises:
    UserError: The model cannot do it, or results would overwrite images.
  """
  s, overlap, labels = tile_settings(model, factor, overlap, labels, batch)
  target = files.path(out)
  jobs = planned_jobs(files.local(src), target)
  infos = {job.target: dict(info or {}) | {"source": printable(job.name)} for job in jobs}
  check_folder(target, {k.relative_to(target).as_posix(): v for k, v in infos.items()}.get)
  total = sum(count(job.source, s, overlap) for job in jobs)
  progress, report = Progress(total, 1, unit="tiles", stream=sys.stderr), Report()
  stream = tiles(jobs, model.shape[-1], (s, factor, overlap), report, progress)
  batch = min(batch, max(total, 1))
  for work, tile in draw_tiles(model, stream, batch, key, factor, labels, knobs or {}, progress):
    if work.canvas.add(tile):
      image = finish_picture(work.canvas.image, work.picture)
      save(work.job.target, image, work.picture.profile, infos[work.job.target])
      report.done.append(work.job.name)
  progress.end()
  return report


Tile = tuple[Work, np.ndarray, tuple[int, int]]  # small, and the pixel where it begins


def tiles(
  jobs: list[Job], channels: int, layout: tuple[int, int, int], report: Report, progress: Progress
) -> Iterator[Tile]:
  """Small tiles of all images in turn; images that are broken are reported."""
  for job in jobs:
    try:
      picture = open_picture(job.source, channels)
    except Exception as e:  # a broken file may fail anywhere in a decoder
      why = (str(e) or type(e).__name__).splitlines()[0].split(" '/")[0]
      report.skipped[job.name] = why
      progress.print_line(f"jaxgen: {printable(job.name)} is skipped: {why}")
      continue
    work = Work(job, picture, Canvas(picture.x, *layout))
    for tile, corner in work.canvas.tiles():
      yield work, tile, corner


def draw_tiles(
  model: Sampler,
  stream: Iterator[Tile],
  batch: int,
  key: Key,
  factor: int,
  labels: int | None,
  knobs: Mapping[str, float],
  progress: Progress,
) -> Iterator[tuple[Work, np.ndarray]]:
  """Small tiles -> large ones, `batch` of them at a time."""
  k_noise, k_sample = (jax.random.fold_in(key, i) for i in range(2))
  drawn = 0
  for n in itertools.count():
    group = list(itertools.islice(stream, batch))
    if not group:
      return
    filled = [group[i % len(group)] for i in range(batch)]
    corners = factor * np.array([corner for *_, corner in filled], np.int32)
    x = model.sample(
      jax.random.fold_in(k_sample, n),
      batch,
      labels,
      batch=batch,
      low_res=np.stack([tile for _, tile, _ in filled]),
      noise=np.asarray(tile_noise(k_noise, jnp.asarray(corners), model.shape)),
      **knobs,
    )
    for (work, *_), tile in zip(group, x, strict=False):
      yield work, tile
    drawn += len(group)
    progress.at(drawn)


def factor_of(model: Sampler) -> int:
  """How much an upsampler enlarges; UserError for what is none."""
  make = trait(model.model, "cond").get("low_res")
  if make is None:
    raise UserError(
      f"a {type(model.model).__name__} that was trained without "
      "low_res enlarges nothing: want an upsampler"
    )
  return model.shape[0] // condition_shape(make, model.shape)[0]


def tile_settings(
  model: Sampler, factor: int, overlap: int | None, labels: int | None, batch: int
) -> tuple[int, int, int | None]:
  """Side of a small tile, overlap and label; UserError for a misfit."""
  shape = tuple(model.shape)
  if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in MODES:
    raise UserError(
      f"this model makes {list(shape)}: to enlarge images takes one of square images, grey or RGB"
    )
  if factor < 1 or shape[0] % factor:
    raise UserError(f"factor={factor}: does not divide the model's {shape[0]} pixels")
  s = shape[0] // factor
  overlap = s // 4 if overlap is None else overlap
  if not 0 <= overlap < s:
    raise UserError(f"overlap={overlap}: want 0 to {s - 1}, as tiles have {s}")
  if model.classes and labels is None:
    if not trait(model.model, "free"):
      raise UserError(
        f"this model wants a label for your images: give one of 0 to {model.classes - 1}"
      )
    labels = -1  # any
  if batch < 1:
    raise UserError(f"batch={batch}: want at least 1")
  return s, overlap, labels


def planned_jobs(src: Path, out: Path) -> list[Job]:
  """Where the result of each image goes; UserError if it must not."""
  if not src.is_dir():
    raise UserError(f"there is no folder {src}")
  home, away = src.resolve(), out.resolve()
  if away == home or home in away.parents:
    raise UserError(f"results in {out} would mix with the images of {src}: give another folder")
  if out.exists() and not out.is_dir():
    raise UserError(f"{out} is a file: want a folder for the results")
  names = listing(src)
  stems = Counter(name.rpartition(".")[0] for name in names)
  jobs = []
  for name in names:  # a.jpg -> a.png; beside an a.bmp, a.jpg.png
    stem = name.rpartition(".")[0]
    unique = stem if stems[stem] == 1 else name
    jobs.append(Job(name, src / name, out / f"{unique}.png"))
  inputs = {job.source.resolve() for job in jobs}
  for target, n in Counter(job.target for job in jobs).items():
    if n > 1:
      raise UserError(f"two images would become {target}: rename one")
    if target.resolve() in inputs:
      raise UserError(f"the result {target} would overwrite one of the images")
  return jobs


def count(path: Path, s: int, overlap: int) -> int:
  """How many tiles cover a file, by the size in its head; 0 if broken."""
  try:
    with open_image(path) as image:
      return int(np.prod([len(tile_starts(max(n, s), s, overlap)) for n in image.size]))
  except Exception:  # named when its turn comes
    return 0
