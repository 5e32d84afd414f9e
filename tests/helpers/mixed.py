"""A folder of image files of all kinds, as users have them.

  python tests/helpers/mixed.py FOLDER [N]

Three subfolders with names that are not ASCII; PNG, JPEG (one in four turned by
its EXIF tag), WebP, BMP, GIF with a palette, grey, RGBA, CMYK and 16 bits; one
file cut short, one text that is called .jpg, one exact and one near duplicate.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

CLASSES = ("Äpfel", "日本", "ёлки")
TRUNCATED, TEXT = "cut short.png", "a text.jpg"


def picture(rng: np.random.Generator, kind: int, side: int) -> Image.Image:
  """Discs, stripes or checks in two colours on a gradient, RGB, about side x side."""
  width, height = side, side + int(rng.integers(0, side // 3))
  v, u = np.mgrid[:height, :width] / side
  a, b = rng.uniform(0, 255, (2, 3))
  if kind == 0:
    center, radius = rng.uniform(0.25, 0.75, 2), rng.uniform(0.1, 0.4)
    mask = (u - center[0]) ** 2 + (v - center[1]) ** 2 < radius**2
  else:
    angle, pitch, phase = rng.uniform((0, 0.1, 0), (np.pi, 0.5, 1))
    waves = [np.sin(2 * np.pi * ((u * np.cos(t) + v * np.sin(t)) / pitch + phase))
             for t in (angle, angle + np.pi / 2)]  # fmt: skip
    mask = waves[0] > 0 if kind == 1 else waves[0] * waves[1] > 0
  x = np.where(mask[..., None], a, b) + 40 * (u * rng.normal() + v * rng.normal())[..., None]
  return Image.fromarray(np.clip(x + rng.normal(0, 4, x.shape), 0, 255).astype(np.uint8))


def save(image: Image.Image, stem: pathlib.Path, form: int) -> None:
  """One of ten kinds of files."""
  grey = image.convert("L")
  turned = Image.Exif()
  turned[0x0112] = 6  # to be turned by 90 degrees
  match form:
    case 0:
      image.save(f"{stem}.png")
    case 1:
      image.save(f"{stem}.jpg", quality=90)
    case 2:
      image.transpose(Image.Transpose.ROTATE_90).save(f"{stem}.jpeg", exif=turned)
    case 3:
      image.save(f"{stem}.webp", quality=90)
    case 4:
      grey.save(f"{stem}.png")
    case 5:
      image.convert("RGBA").save(f"{stem}.png")
    case 6:
      image.convert("CMYK").save(f"{stem}.jpg", quality=95)
    case 7:
      image.quantize(64).save(f"{stem}.gif")
    case 8:
      Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(f"{stem}.png")
    case 9:
      image.save(f"{stem}.bmp")


def mixed_folder(path: pathlib.Path, n: int = 60, seed: int = 0, side: int = 40) -> pathlib.Path:
  """Writes n readable images, copies among them, and two that are not."""
  rng = np.random.default_rng(seed)
  for name in CLASSES:
    (path / name).mkdir(parents=True)
  for i in range(n - 2):
    image = picture(rng, i % 3, side + int(rng.integers(0, side)))
    save(image, path / CLASSES[i % 3] / f"{i:05d}", i // 3 % 10)
    if i == 0:
      image.save(path / CLASSES[0] / "copy.png")
      near = np.clip(np.asarray(image).astype(int) + 3, 0, 255).astype(np.uint8)
      Image.fromarray(near).save(path / CLASSES[0] / "near.png")
  whole = (path / CLASSES[0] / "copy.png").read_bytes()
  (path / CLASSES[1] / TRUNCATED).write_bytes(whole[: len(whole) // 2])
  (path / CLASSES[2] / TEXT).write_text("no image at all\n")
  return path


if __name__ == "__main__":
  mixed_folder(pathlib.Path(sys.argv[1]), int((*sys.argv, 60)[2]))
