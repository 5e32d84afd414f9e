"""From an image file to the uint8 pixels that a model is trained on."""

import collections
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # PIL's own limit, beyond which it only warns
MODES = {1: "L", 3: "RGB"}
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")  # modes
SQUARES = "what is no square is cropped to its middle"  # to users
SUFFIXES = frozenset(".png .jpg .jpeg .webp .bmp .gif .tif .tiff .ppm .pgm".split())
# What files of these names are. Pillow knows many more formats, and starts
# Ghostscript, a program, for whatever begins with %!PS.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
  """An image file by its head; pixels are decoded when they are asked for.

  The one place where Pillow meets a file.

  Raises:
    ValueError: it is in none of FORMATS, whatever its name says.
    OSError: it cannot be read.
  """
  try:
    return Image.open(file, formats=FORMATS)
  except UnidentifiedImageError:
    raise ValueError(f"it is none of {', '.join(FORMATS)}") from None


def ahead(function: Callable, items: Iterable, threads: int = 8, most: int = 256) -> Iterator[Any]:
  """function(item) of each item in order, computed by threads up to `most`."""
  with ThreadPoolExecutor(threads) as pool:
    queue = collections.deque()
    try:
      for item in items:
        queue.append(pool.submit(function, item))
        if len(queue) > most:
          yield queue.popleft().result()
      while queue:
        yield queue.popleft().result()
    finally:
      for future in queue:
        future.cancel()


def decode(file: str | Path | IO[bytes] | bytes, size: int | None, channels: int) -> np.ndarray:
  """Pixels uint8 [size, size, channels] of a stored image, see `upright`.

  With `size` None the image stays as it is.
  """
  return pixels(crop(upright(file, channels), size))


def upright(file: str | Path | IO[bytes] | bytes, channels: int) -> Image.Image:
  """A stored image as 8-bit L or RGB.

  Turned upright by its EXIF tag. Transparency is dropped, not composited:
  that is what reference evaluators see when they convert to RGB, and a model
  should be trained on what it is judged by. 16-bit grey is scaled to 8 bits.
  Of an animation, the first frame.

  Raises:
    ValueError, OSError, or what else a broken file may do to the decoder.
  """
  if isinstance(file, bytes):
    file = io.BytesIO(file)
  with open_image(file) as image:
    width, height = image.size
    if width * height > MAX_PIXELS:
      raise ValueError(f"{width}x{height} is more than {MAX_PIXELS} pixels")
    image.load()  # all of it: a file that was cut short shows up here
    return to_mode(ImageOps.exif_transpose(image), MODES[channels])


def reason(e: Exception) -> str:
  """First line of what a decoder says of a broken file, without a path."""
  return (str(e) or type(e).__name__).splitlines()[0].split(" '/")[0][:120]


def pixels(image: Image.Image) -> np.ndarray:
  """Pixels uint8 [H, W, C] of an L or RGB image."""
  x = np.array(image)
  return x if x.ndim == 3 else x[..., None]


def to_mode(image: Image.Image, mode: str) -> Image.Image:
  """Converts any kind of image to 8-bit L or RGB."""
  if image.mode == "F":
    raise ValueError("floating-point pixels have no known range")
  if image.mode.startswith("I"):  # PIL's own conversion would clip at 255
    x = np.asarray(image).astype(np.int64)
    if x.min() < 0 or x.max() > 65535:
      raise ValueError("integer pixels beyond 16 bits have no known range")
    image = Image.fromarray(((x + 128) // 257).astype(np.uint8))
  if "transparency" in image.info:  # PIL warns if it must go in one step
    image = image.convert("RGBA")
  return image.convert(mode)


def crop(image: Image.Image, size: int | None) -> Image.Image:
  """The middle square, resized to `size`.

  openai/guided-diffusion, image_datasets.center_crop_arr.
  """
  if size is None:
    return image
  image = resize(image, size)
  left, top = ((side - size) // 2 for side in image.size)
  return image.crop((left, top, left + size, top + size))


def random_crop(image: Image.Image, size: int, share: float, words: np.ndarray) -> Image.Image:
  """A square anywhere, resized to `size`: of `share` to 1 of the short side.

  openai/guided-diffusion, image_datasets.random_crop_arr with min_crop_frac =
  share: the short side becomes size, .. or ceil(size / share), then the square
  is cut out. `words`: three of 32 random bits, for that size, top and left.
  """
  sizes = math.ceil(size / share) - size + 1
  image = resize(image, size + _below(sizes, words[0]))
  width, height = image.size
  top = _below(height - size + 1, words[1])
  left = _below(width - size + 1, words[2])
  return image.crop((left, top, left + size, top + size))


def _below(n: int, word: np.ndarray) -> int:
  """A number from 0 .. n - 1, by 32 random bits."""
  return int(word) * n >> 32


def resize(image: Image.Image, side: int) -> Image.Image:
  """The image, its short side resized to `side`.

  Halves by averaging while that is at least 2 side, then goes bicubically.
  """
  while min(image.size) >= 2 * side:
    width, height = image.size
    image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
  scale = side / min(image.size)
  width, height = (round(side * scale) for side in image.size)
  if width * height > MAX_PIXELS:
    raise ValueError(f"{image.size[0]}x{image.size[1]} is too narrow")
  return image.resize((width, height), Image.Resampling.BICUBIC)


def fit(x: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
  """The same rule for a stack of images, uint8 [N, H, W, C]."""
  channels = channels or x.shape[-1]
  if channels == x.shape[-1] and (size is None or x.shape[1:3] == (size, size)):
    return x
  images = Stack(x, channels)
  return np.stack([pixels(crop(images(i), size)) for i in range(len(x))])


def fitted(
  x: np.ndarray, size: int | None, channels: int | None
) -> tuple[np.ndarray, "Stack | None"]:
  """`fit`, and the images before it where their shape was another."""
  fit_x = fit(x, size, channels)
  return fit_x, None if fit_x.shape == x.shape else Stack(x, fit_x.shape[-1])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stack:
  """Images of an array uint8 [N, H, W, C], by number."""

  x: np.ndarray
  channels: int

  def __call__(self, i: int) -> Image.Image:
    x = self.x[i]
    image = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
    return image.convert(MODES[self.channels])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Files:
  """Images of files by number; `open` gives what `upright` takes of a name."""

  open: Callable[[str], Any]
  names: Sequence[str]
  channels: int

  def __call__(self, i: int) -> Image.Image:
    return upright(self.open(self.names[i]), self.channels)
