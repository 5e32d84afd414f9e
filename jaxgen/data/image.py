"""From an image file to the uint8 pixels that a model is trained on."""

import io
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 89_478_485  # PIL's own limit, beyond which it only warns
MODES = {1: "L", 3: "RGB"}


def decode(
  file: str | Path | IO[bytes] | bytes, size: int | None, channels: int
) -> np.ndarray:
  """Pixels uint8 [size, size, channels] of a stored image.

  Turned upright by its EXIF tag. Transparency is dropped, not composited:
  that is what reference evaluators see when they convert to RGB, and a model
  should be trained on what it is judged by. 16-bit grey is scaled to 8 bits.
  Of an animation, the first frame. With `size` None the image stays as it is.

  Raises:
    ValueError, OSError, or what else a broken file may do to the decoder.
  """
  if isinstance(file, bytes):
    file = io.BytesIO(file)
  with Image.open(file) as image:
    width, height = image.size
    if width * height > MAX_PIXELS:
      raise ValueError(f"{width}x{height} is more than {MAX_PIXELS} pixels")
    image.load()  # all of it: a file that was cut short shows up here
    image = ImageOps.exif_transpose(image)
    return pixels(crop(to_mode(image, MODES[channels]), size))


def pixels(image: Image.Image) -> np.ndarray:
  """Of an L or RGB image: uint8 [H, W, C]."""
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

  Halves by averaging while the short side is at least 2 size, then resizes
  bicubically: openai/guided-diffusion, image_datasets.center_crop_arr.
  """
  if size is None:
    return image
  while min(image.size) >= 2 * size:
    width, height = image.size
    image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
  scale = size / min(image.size)
  width, height = (round(side * scale) for side in image.size)
  if width * height > MAX_PIXELS:
    raise ValueError(f"{image.size[0]}x{image.size[1]} is too narrow")
  image = image.resize((width, height), Image.Resampling.BICUBIC)
  left, top = (width - size) // 2, (height - size) // 2
  return image.crop((left, top, left + size, top + size))


def fit(x: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
  """The same rule for a stack of images, uint8 [N, H, W, C]."""
  channels = channels or x.shape[-1]
  if channels == x.shape[-1] and x.shape[1:3] == (size or x.shape[1],) * 2:
    return x
  if size is None and channels == x.shape[-1]:
    return x
  images = (Image.fromarray(i[..., 0] if i.shape[-1] == 1 else i) for i in x)
  mode = MODES[channels]
  return np.stack([pixels(crop(i.convert(mode), size)) for i in images])
