"""The networks that metrics look through: Inception, DINOv2, classifiers."""
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError
from jaxgen.evaluation import weights as published
from jaxgen.evaluation.extractor import Extractor, batch_size
from jaxgen.evaluation.resize import (
  bilinear,
  by_pil,
  clean,
  rounded,
  smooth,
  unresized,
)
from jaxgen.nets import dinov2 as dino
from jaxgen.nets import inception as incept
from jaxgen.nets import resize as grids

Array = jax.Array


def open_extractor(name: str, weights: str | os.PathLike | None = None,
                   resize: str = "tf", batch: int | None = None) -> Extractor:
  """A published network by name: "inception" or "dinov2".

  Args:
    name: Of the network.
    weights: A file; by default wherever it is found, see `weights.find`.
    resize: Of Inception, see `inception`.
    batch: Images at a time.
  """
  if name == "inception":
    return inception(weights, resize, batch)
  if name == "dinov2":
    return dinov2(weights, batch=batch)
  raise UserError(f"there is no network {name!r}: take inception or dinov2")


def inception(weights: str | os.PathLike | None = None, resize: str = "tf",
              batch: int | None = None) -> Extractor:
  """FID's Inception.

  Args:
    weights: A file, see `weights.inception`.
    resize: "tf", "half_pixel" (pytorch-fid), "clean" (clean-fid) or "none":
      images are looked at in their own size.
    batch: Images at a time.
  """
  ways = {  # to their size, and to [-1, 1]
      "tf": (bilinear(grids.tf1, incept.SIZE), half),
      "half_pixel": (bilinear(grids.half_pixel, incept.SIZE), unit),
      "clean": (by_pil(clean, incept.SIZE), half),
      "none": (unresized(), unit)}
  way, normalise = among(ways, resize)
  found = published.inception(weights)
  net = incept.Inception()
  def apply(params, x, taps):
    return net.apply({"params": params}, normalise(x), taps)
  return Extractor(
      named("inception", found), found.sha256, tuple(incept.TAPS),
      card("inception-2015-12-05", found, resize), way, apply,
      found.params, batch_size(batch))


def dinov2(weights: str | os.PathLike | None = None, resize: str = "smooth",
           batch: int | None = None) -> Extractor:
  """DINOv2's ViT-L/14 at 224 pixels, as FD-DINOv2 has it.

  Args:
    weights: A file, see `weights.dinov2`.
    resize: "smooth" (EDM2's: antialiased bicubic in float) or "rounded"
      (dgm-eval's: PIL's bicubic of bytes).
    batch: Images at a time.
  """
  ways = {"smooth": smooth, "rounded": rounded}
  way = by_pil(among(ways, resize), dino.SIZE)
  found = published.dinov2(weights)
  net = dino.DINOv2()
  def apply(params, x, taps):
    x = (x / 255 - jnp.array(dino.MEAN)) / jnp.array(dino.STD)
    return {tap: net.apply({"params": params}, x) for tap in taps}
  return Extractor(
      named("dinov2-vitl14", found), found.sha256, ("cls",),
      card("dinov2_vitl14", found, resize), way, apply,
      found.params, batch_size(batch))


def classifier(model: Any, state: Any, name: str, sha256: str,
               batch: int | None = None) -> Extractor:
  """A classifier of ours, by its `embed` and `logits` of {"x": images}.

  Images have the size that it was trained on.

  Args:
    model: Such as `models.classifier.Classifier`.
    state: What it was trained to.
    name: For the names of metrics.
    sha256: Identifies its weights.
    batch: Images at a time.
  """
  def apply(state, x, taps):
    x = {"x": unit(x)}
    found = {"features": lambda: model.embed(state, x),
             "logits": lambda: model.logits(state, x)}
    return {tap: found[tap]() for tap in taps}
  return Extractor(
      name, sha256, ("features", "logits"),
      {"network": name, "sha256": sha256, "resize": "none"},
      unresized(), apply, state, batch_size(batch), channels=None)


def among(ways: Mapping[str, Any], resize: str) -> Any:
  """The one of that name."""
  if resize not in ways:
    raise UserError(f"there is no resize {resize!r}, but " + ", ".join(ways))
  return ways[resize]


def named(name: str, found: published.Weights) -> str:
  """With the beginning of its weights' checksum if they are others."""
  return name if found.published else f"{name}-{found.sha256[:8]}"


def card(network: str, found: published.Weights, resize: str
         ) -> dict[str, Any]:
  """How features come about."""
  return {"network": network, "weights": found.file, "sha256": found.sha256,
          "published": found.published, "resize": resize,
          "precision": "float32", "backend": jax.default_backend()}


def half(x: Array) -> Array:
  """Bytes -> [-1, 1), as FID's graph has it."""
  return (x.astype(jnp.float32) - 128) / 128


def unit(x: Array) -> Array:
  """Bytes -> [-1, 1], as PyTorch's have it."""
  return x.astype(jnp.float32) / 127.5 - 1
