"""Images of a user's own: read for a model, and written as they were."""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from jaxgen.data.image import MAX_PIXELS, open_image, pixels, to_mode
from jaxgen.errors import UserError
from jaxgen.files import atomic
from jaxgen.monitor.pictures import KEY


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


def opened(path: Path, channels: int) -> Picture:
  """A stored image, turned upright by its EXIF tag, in 8 bits a channel.

  Raises:
    ValueError, OSError, or what else a broken file may do to the decoder.
  """
  with open_image(path) as image:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph and its preview
      raise ValueError(f"holds {frames} pictures: save the one you want")
    if image.width * image.height > MAX_PIXELS:
      raise ValueError(f"{image.width}x{image.height} is more than "
                       f"{MAX_PIXELS} pixels")
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


def finished(x: np.ndarray, picture: Picture) -> Image.Image:
  """What was made of a picture, uint8 [H, W, C], in the mode of its source.

  Opacity is enlarged bicubically.
  """
  image = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
  image = image.convert("L") if picture.grey else image
  if picture.alpha is not None:
    image.putalpha(Image.fromarray(picture.alpha).resize(
        image.size, Image.Resampling.BICUBIC))
  return image


def save(path: Path, image: Image.Image, profile: bytes | None,
         info: Mapping[str, Any]) -> None:
  """Writes a PNG whole or not at all, with how it was made in it."""
  chunks = PngImagePlugin.PngInfo()
  chunks.add_itxt(KEY, json.dumps(dict(info), ensure_ascii=False))
  try:
    with atomic(path) as draft:
      image.save(draft, "PNG", icc_profile=profile, pnginfo=chunks)
  except OSError as e:
    raise UserError(f"cannot write {path}: {e.strerror or e}") from e
