"""`jaxgen edit` of GANs: an image is projected, and moved along a direction of styles.

See `sampling.style_edit`. What the GAN cannot make of an image is lost, so that the page
shows the projection beside it.
"""

import functools
from typing import Any

import jax
import numpy as np
from absl import flags

from jaxgen.errors import UserError, printable
from jaxgen.metrics.image_quality import psnr
from jaxgen.monitor import pictures
from jaxgen.report.page_numbers import Column
from jaxgen.report.task_page import Gallery, Picture, Table, render
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.sampling.style_edit import HOWS, style_edit
from jaxgen.tasks import edit_outputs, memorisation
from jaxgen.tasks.commands import command_of
from jaxgen.tasks.edit_inputs import Original, read_images
from jaxgen.tasks.edit_page import NOT_FOR, SHOWN, TALLEST

STRENGTH = 3.0  # where nothing is said
ABOUT = {
  "sefa": "along eigenvectors of what layers do with styles (Shen & Zhou 2021)",
  "ganspace": "along principal components of styles (Härkönen et al. 2020)",
}


def define(values: flags.FlagValues) -> None:
  """Flags of these edits alone."""
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  integer("direction", 0, "of sefa and ganspace: which, 0 the strongest")
  integer("projection_steps", 500, "of sefa and ganspace: of finding the image in the GAN")
  flags.DEFINE_string(
    "layers", None, "of sefa and ganspace: 2:5, those that take the edit", flag_values=values
  )


def run(values: flags.FlagValues) -> None:
  """Edits --image along --direction by --strength, to --out."""
  for name in ("mask", "operator", "to", "source", "classifier"):
    if values[name].value:
      raise UserError(f"--how={values.how} takes no --{name}")
  if not values.image:
    raise UserError("edit needs --image=a.png")
  page = edit_outputs.page_of(values.out, values.page or None)
  sampler = load(values.workdir, ema=values.ema, step=values.step)
  originals = read_images(values.image, sampler.shape, not values.no_resize)
  infos = infos_of(values, sampler, originals)
  names = edit_outputs.names_of(originals)
  edit_outputs.check(values.out, page, names, infos, originals)
  copies = memorisation.open_copies(values.copies, values.workdir)
  x = np.stack([o.x for o in originals])
  strength = STRENGTH if values.strength is None else values.strength
  steps = (-strength, strength)
  here, edits = style_edit(
    sampler,
    x,
    values.how,
    values.direction,
    steps,
    layers=layers_of(values.layers),
    labels=labels_of(sampler, values.labels),
    steps=values.projection_steps,
    seed=values.seed,
  )
  check = copies and copies(edits[:, 1], x, f"results of {values.how}")
  if check:
    print(check.line())
    infos = infos if page else [i | {"copies": check.card} for i in infos]
  edit_outputs.write(values.out, names, edits[:, 1], infos)
  if page:
    made = edit_outputs.shared(infos)
    edit_outputs.write_page(page, *page_text(values, originals, here, edits, strength, made, check))


def infos_of(
  values: flags.FlagValues, sampler: Sampler, originals: list[Original]
) -> list[dict[str, Any]]:
  """What each result's file says of how it was made."""
  common = sampler.card | {
    "edited": True,
    "how": values.how,
    "direction": values.direction,
    "strength": STRENGTH if values.strength is None else values.strength,
    "layers": values.layers,
    "seed": values.seed,
    "command": command_of("edit", values),
  }
  return [
    common | {"source": printable(o.path.name), "sha256": o.sha256, "index": i}
    for i, o in enumerate(originals)
  ]


def layers_of(text: str | None) -> tuple[int, int] | None:
  """ "2:5" -> (2, 5)."""
  if text is None:
    return None
  first, colon, last = text.partition(":")
  if not (colon and first.isdecimal() and last.isdecimal()):
    raise UserError(f"--layers={text}: want two numbers, such as 2:5")
  return int(first), int(last)


def labels_of(sampler: Sampler, text: str | None) -> Any:
  """Labels as `Sampler.labels` takes them."""
  return None if text is None else sampler.numbers([w.strip() for w in text.split(",")])


def page_text(
  values: flags.FlagValues,
  originals: list[Original],
  here: np.ndarray,
  edits: np.ndarray,
  strength: float,
  made: dict[str, Any],
  check: memorisation.CopyCheck | None,
) -> tuple[str, dict[str, Any]]:
  """The page and its numbers: rows of the image, its projection, the edit both ways."""
  x = np.stack([o.x for o in originals])
  rows = np.stack([x, edits[:, 0], here, edits[:, 1]], 1)[:SHOWN]
  scale = max(1, round(TALLEST / max(x.shape[1:3])))
  grid = pictures.grid(rows.reshape(-1, *x.shape[1:]), rows.shape[1], scale)
  nearness = [float(v) for v in psnr(here, x)]
  note = f"In each row the image, then at strength {-strength:g}, 0 and {strength:g}."
  facts = [
    ("Method", f"{values.how}: {ABOUT[values.how]}, direction {values.direction}"),
    ("Projection", f"{values.projection_steps} steps of Adam, for the w or z of the image"),
    ("Time", f"on {jax.devices()[0].device_kind}"),
    ("Model", f"{made.get('workdir')}, step {made.get('step')}, {made.get('dataset')}"),
    ("Not for", NOT_FOR),
  ]
  table = Table(
    "Numbers",
    "How near the GAN comes to an image before any edit: what is lost there stays lost.",
    [printable(o.path.name) for o in originals],
    [Column("PSNR of the projection", 1, nearness, lambda v: f"{v:.1f} dB")],
  )
  parts = [Gallery("Pictures", note, [Picture(pictures.png(grid, made), values.how)], wide=True)]
  verdict = (
    f"{len(x)} image{'s' * (len(x) > 1)} along direction {values.direction} of {values.how}: "
    f"{np.mean(nearness):.1f} dB from image to projection"
  )
  parts += [table, *([memorisation.gallery(check)] if check else [])]
  text = render("Edited images", verdict, parts, facts, made["command"], NOT_FOR)
  card = {"made": made, "scores": {"psnr": float(np.mean(nearness))}}
  return text, card | ({"copies": check.card} if check else {})


def takes(how: str | None) -> bool:
  """Whether a method is one of these."""
  return how in HOWS
