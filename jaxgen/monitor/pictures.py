"""Pictures: grids, scatter plots, and PNG files that say how they were made."""

import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import PIL.PngImagePlugin

from jaxgen import files
from jaxgen.audio.bands import hann, slaney_bands
from jaxgen.data.image import open_image
from jaxgen.errors import UserError, printable

if TYPE_CHECKING:
  import matplotlib.figure

KEY = "jaxgen"  # the PNG text chunk that holds JSON
# Of spectrograms: samples of the shortest frame, frames, bands, and how often
# as long as a frame its transform is, so that no band of low tones is empty.
FRAME, COLUMNS, BANDS, PADDING = 256, 128, 80, 4
RANGE, QUIET = 60.0, -30.0  # decibels that are seen; of what is silence in any case
RATE = 16_000  # where nobody says it


def grid(
  images: np.ndarray, columns: int | None = None, scale: int | None = None, pad: int | None = None
) -> np.ndarray:
  """Images uint8 [N, H, W, C] -> one picture uint8 [H', W', 3], row by row.

  Args:
    images: C is 1 (grey) or 3 (RGB).
    columns: images in a row; the least that makes the picture no taller than
      wide if None.
    scale: every pixel becomes scale x scale; if None, images are enlarged to
      about 64 pixels, so that 8x8 digits can be seen.
    pad: white pixels between images; about 1/32 of an image if None.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4:
    raise ValueError(f"uint8 [N, H, W, C], got {images.dtype} {images.shape}.")
  n, height, width, channels = images.shape
  if not n or channels not in (1, 3):
    raise ValueError(f"A grid of {n} images with {channels} channels.")
  columns = columns or math.ceil(math.sqrt(n))
  scale = scale or max(1, round(64 / max(height, width)))
  images = images.repeat(scale, 1).repeat(scale, 2)
  height, width = height * scale, width * scale
  pad = max(1, round(width / 32)) if pad is None else pad
  rows = math.ceil(n / columns)
  shape = rows * (height + pad) - pad, columns * (width + pad) - pad, 3
  picture = np.full(shape, 255, np.uint8)
  for i, image in enumerate(images):
    y, x = (i // columns) * (height + pad), (i % columns) * (width + pad)
    picture[y : y + height, x : x + width] = image
  return picture


def spectrograms(clips: np.ndarray, rate: int = RATE) -> np.ndarray:
  """Clips int16 [N, L] -> mel spectrograms uint8 [N, 80, 128, 3], low tones below.

  Time goes to the right. What is 60 decibels below the loudest of its clip is
  black, and so is all of a clip that is silent.

  Args:
    clips: Waveforms.
    rate: Samples a second: where bands lie.
  """
  import matplotlib  # here, for many verbs draw nothing

  hop = max(clips.shape[1] // COLUMNS, 1)
  size = max(FRAME, 1 << (2 * hop - 1).bit_length())
  bands = slaney_bands(rate, PADDING * size, BANDS, 0.0, rate / 2)
  wave = clips.astype(np.float32) / 2**15
  padded = np.pad(wave, ((0, 0), (size // 2, size // 2 + COLUMNS * hop)))
  frames = np.lib.stride_tricks.sliding_window_view(padded, size, 1)[:, ::hop][:, :COLUMNS]
  spectrum = np.stack([np.abs(np.fft.rfft(f * hann(size), PADDING * size)) for f in frames])
  decibels = 20 * np.log10(np.maximum(spectrum @ bands, 1e-9))
  top = np.maximum(decibels.max((1, 2), keepdims=True), QUIET)
  shade = np.clip(1 + (decibels - top) / RANGE, 0, 1).swapaxes(1, 2)[:, ::-1]
  return matplotlib.colormaps["magma"](shade, bytes=True)[..., :3]


def scatter(
  points: np.ndarray,
  real: np.ndarray | None = None,
  *,
  limit: float | None = None,
  pixels: int = 512,
) -> np.ndarray:
  """Points [N, 2] (blue), over real ones (grey) -> uint8 [pixels, pixels, 3].

  `limit` is the half-width shown, so that pictures can be compared; by default
  all of `real`, or of `points`, is seen. Points that are not finite are left
  out.
  """
  points = np.asarray(points, np.float64)
  shown = points if real is None else np.asarray(real, np.float64)
  if limit is None:
    finite = np.abs(shown[np.isfinite(shown)])
    limit = 1.1 * finite.max() if finite.size and finite.max() else 1.0
  figure = _figure(figsize=(4, 4), dpi=pixels / 4)
  axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
  if real is not None:
    axes.scatter(*shown.T, s=4, c="#bbbbbb", linewidths=0)
  axes.scatter(*points.T, s=4, c="#2b6cb0", alpha=0.6, linewidths=0)
  axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
  axes.spines[:].set_color("#dddddd")
  return pixels_of(figure)


def curves(
  series: Mapping[str, Sequence[tuple[float, float]]],
  *,
  x: str,
  y: str,
  floor: float | None = None,
  floor_name: str = "real test data",
  shares: bool = False,
) -> np.ndarray:
  """Named curves -> uint8 [H, W, 3].

  An axis is logarithmic where its values are positive and span a factor of 3;
  that of `shares` goes from 0 to 1. `floor` is drawn as a dotted line.
  """
  figure = _figure(figsize=(8, 5), dpi=120)
  axes = figure.add_axes((0.09, 0.12, 0.6, 0.83))
  marks = "osD^vPX*<>"
  for i, (name, points) in enumerate(series.items()):
    axes.plot(
      *zip(*sorted(points), strict=True),
      label=_literal(name),
      linewidth=1.5,
      marker=marks[i % len(marks)],
      markersize=5,
      color=f"C{i % 10}",
      linestyle=("-", "--", ":")[i // 10 % 3],
    )
  if floor is not None:
    axes.axhline(floor, color="#888888", linestyle=":", linewidth=1)
    axes.text(
      1,
      floor,
      f" {_literal(floor_name)}",
      transform=(axes.get_yaxis_transform()),
      va="center",
      fontsize=8,
      color="#666666",
    )
  values = [p for points in series.values() for p in points]
  wide = [min(v) > 0 and max(v) >= 3 * min(v) for v in zip(*values, strict=True)]
  wide[1] &= not shares
  scale = {True: "log", False: "linear"}
  axes.set(xscale=scale[wide[0]], yscale=scale[wide[1]], xlabel=_literal(x), ylabel=_literal(y))
  if shares:
    axes.set_ylim(0, 1)
  _set_ticks(axes, {p[0] for p in values}, *wide)
  axes.tick_params(axis="x", labelrotation=45, labelsize=8)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(loc="upper left", bbox_to_anchor=(1.02, 0.9), frameon=False, fontsize=8)
  return pixels_of(figure)


def _set_ticks(axes, places: set[float], log_x: bool, log_y: bool) -> None:
  """A tick at each place whose label has room, in plain numbers."""
  from matplotlib import ticker

  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(ticker.NullFormatter())
  ticks = []
  for place in sorted(places):
    if not ticks or not log_x or place >= 1.2 * ticks[-1]:  # labels overlap
      ticks.append(place)
  axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  if log_y:
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))


def panels(rows: Mapping[str, Mapping[str, np.ndarray]], columns: Sequence[str]) -> np.ndarray:
  """Pictures by row and column -> one, with titles, uint8 [H, W, 3].

  What is missing of `columns` in a row stays blank.
  """
  wide, high = 0.3 + 1.7 * len(columns), 0.3 + 1.7 * len(rows)
  figure = _figure(figsize=(wide, high), dpi=120)
  for i, (row, images) in enumerate(rows.items()):
    for j, column in enumerate(columns):
      place = (0.3 + 1.7 * j) / wide, 1 - (1.95 + 1.7 * i) / high
      axes = figure.add_axes((*place, 1.65 / wide, 1.65 / high))
      axes.set(xticks=[], yticks=[])
      axes.spines[:].set_visible(False)
      if column in images:
        axes.imshow(images[column], interpolation="antialiased")
      if not i:
        axes.set_title(_literal(column), fontsize=9, pad=4)
      if not j:
        axes.set_ylabel(_literal(row), fontsize=9)
  return pixels_of(figure)


def png(image: np.ndarray, info: Mapping | None = None) -> bytes:
  """A picture uint8 [H, W, 3] as PNG; `info` goes in as JSON text."""
  chunks = PIL.PngImagePlugin.PngInfo()
  chunks.add_itxt(KEY, json.dumps(dict(info or {}), ensure_ascii=False))
  buffer = io.BytesIO()
  PIL.Image.fromarray(np.asarray(image)).save(buffer, "PNG", pnginfo=chunks)
  return buffer.getvalue()


def save_png(path: str | os.PathLike, image: np.ndarray, info: Mapping | None = None) -> None:
  """Writes a PNG whole or not at all, with how it was made in it.

  Raises:
    UserError: the name is that of another format.
  """
  if pathlib.Path(path).suffix.lower() != ".png":
    raise UserError(f"{path}: pictures are PNG files: call it x.png")
  files.write_bytes(path, png(image, info))


def read_info(path: str | os.PathLike) -> dict:
  """How a picture was made, as `save_png` was told.

  Raises:
    UserError: the file is not a PNG that jaxgen wrote.
  """
  try:
    with files.path(path).open("rb") as file, open_image(file) as image:
      return json.loads(image.text[KEY])
  except (OSError, AttributeError, KeyError, ValueError, RecursionError) as error:
    raise UserError(f"{path} does not say how it was made: not a PNG written by jaxgen.") from error


def _literal(text: str) -> str:
  """A name as matplotlib shows it: no formula, and in the legend in any case.

  It reads what stands between dollars as mathematics, and leaves out of a
  legend what begins with an underscore.
  """
  text = printable(text).replace("$", r"\$")
  return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def _figure(**settings) -> "matplotlib.figure.Figure":
  import matplotlib.figure  # here, for many verbs draw nothing

  return matplotlib.figure.Figure(**settings)


def pixels_of(figure: "matplotlib.figure.Figure") -> np.ndarray:
  """What a figure looks like, uint8 [H, W, 3]."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="rgba")
  wide, high = (round(n * figure.dpi) for n in figure.get_size_inches())
  rgba = np.frombuffer(buffer.getvalue(), np.uint8)
  return rgba.reshape(high, wide, 4)[..., :3].copy()
