"""Edit images by a trained diffusion model: nothing is trained.

  jaxgen edit --workdir W --image a.png --mask m.png --how repaint --out x.png
  jaxgen edit --workdir W --image photos/ --mask m.png --how pigdm --num 4 --out filled/
  jaxgen edit --workdir W --image grey.png --operator grey --how moments --out x.png
  jaxgen edit --workdir W --image a.png --operator blur:2 --original --how pigdm --out x.png
  jaxgen edit --workdir W --image a.png --how sdedit --strength 0.4 --labels 7 --out x.png
  jaxgen edit --workdir W --image a.png --how ddim --source 3 --labels 5 --out x.png
  jaxgen edit --workdir W --image a.png --how ddim --classifier C --scale 2 --labels 5 --out x.png
  jaxgen edit --workdir W --image a.png,b.png --how interpolate --frames 8 --out x.png
  jaxgen edit --workdir G --image a.png --how sefa --direction 2 --strength 3 --out x.png
  jaxgen edit --workdir A --to B --image a.png --how bridge --out x.png
  jaxgen edit --workdir W --measure --mask centre:0.5 --hows repaint,dps,pigdm --out report/

White of a mask is kept, black is filled. Without --original an image is what is left of
one: grey, blurred or small already. Every picture says what made it, of which image. Edits
are no evidence of what was there, and are not to be shown as photographs of people or
events. `--measure` edits test images instead, whose originals are known: see
edit_benchmark.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxgen.errors import UserError, printable
from jaxgen.sampling.output import json_knobs
from jaxgen.sampling.presets import KNOBS, SAMPLERS
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.tasks import edit_benchmark, edit_outputs, edit_page, edit_styles, memorisation
from jaxgen.tasks.commands import command_of
from jaxgen.tasks.edit_inputs import Original, read_images, read_masks
from jaxgen.tasks.edit_methods import METHODS, WORDS
from jaxgen.tasks.editor import LOAD, Editor, operator_of

ALONE = ("measure", "hows", "strengths", "judge", "budget")  # flags of the benchmark
# The knobs of diffusion models.
OWN = "steps guidance scale lo hi eta frac churn s_min s_max s_noise snr cap first bend"
TURNED = {k: KNOBS[k] for k in OWN.split()}
IN_BUCKETS = (  # flags that take gs://bucket/name
  *("workdir", "to", "classifier"),
  *("image", "mask", "out", "page", "judge"),
)


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of the trained diffusion model")
  flag("out", None, "x.png, x.npz or a folder; of --measure a folder")
  flag("image", None, "what is edited: a.png, a.png,b.png or a folder")
  flag("mask", None, "m.png, or a folder of masks named as images are: white is kept, black filled")
  flag("how", None, "one of " + ", ".join(METHODS) + "; of GANs sefa or ganspace")
  flag("operator", None, "what was done to the image: mask, grey, blur:PIXELS, downsample:FACTOR")
  flag("to", None, "of a bridge: workdir of the model that decodes")
  flag("labels", None, "wanted, by number or name: one for all, or in turn; default: any")
  flag("source", None, "labels that the images have, likewise; of ddim, interpolate, bridge")
  flag("page", None, "x.html of pictures and numbers (and x.json); default: beside a folder")
  flag("sampler", None, "in place of the config's: " + ", ".join(SAMPLERS))
  flag("respacing", None, "which times, as in sample: 250, ddim25, karras, ...")
  flag("ema", None, "profile of averaged weights")
  flag("classifier", None, "workdir of a noisy classifier that pushes towards --labels, by --scale")
  flag("guide_ema", None, "profile of averaged weights of the classifier")
  boolean = functools.partial(flags.DEFINE_bool, flag_values=values)
  boolean("invert_mask", False, "white of a mask is filled, black is kept")
  boolean("original", False, "images are whole: the operator is applied to them first")
  boolean("no_resize", False, "refuse images of another size than the model's")
  for name, default, text in (
    ("num", None, "results of each image, default 1; of --measure images, default 64"),
    ("frames", 8, "of interpolate: images in all"),
    ("seed", 0, "of all randomness"),
    ("batch", 64, "images at once"),
    ("step", None, "of the checkpoint; default: the last"),
    ("guide_step", None, "the same of the classifier's"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)
  for name, text in (TURNED | WORDS).items():
    flags.DEFINE_float(name, None, text, flag_values=values)
  edit_benchmark.define(values)
  edit_styles.define(values)
  memorisation.define(values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not values.workdir or not values.out:
    raise UserError("edit needs --workdir=W and --out=x.png, x.npz or folder")
  knobs = {k: values[k].value for k in TURNED | WORDS if values[k].value is not None}
  if values.measure:
    return edit_benchmark.measure(values, knobs)
  others = [k for k in ALONE if values[k].present]
  if edit_styles.takes(values.how):
    return edit_styles.run(values)
  if others or not values.image:
    raise UserError(f"--{others[0]} is for --measure" if others else "edit needs --image=a.png")
  work = prepared(values, knobs)
  work.write(work.run(values))


def how_of(values: flags.FlagValues) -> str:
  """The method; UserError where neither it nor anything that stands for one is given."""
  if values.how:
    return values.how
  if values.to:
    return "bridge"
  if values.mask or values.operator:
    return "repaint" if values.operator in (None, "mask") else "pigdm"
  raise UserError(f"edit needs --how: {', '.join(METHODS)}")


def editor_of(values: flags.FlagValues, how: str, load_model: Any = load) -> Editor:
  """The model and the method; UserError for what does not go together."""
  if values.to and METHODS.get(how) and METHODS[how].wants != "model":
    raise UserError(f"--to is for --how=bridge, not {how}")
  sampler = load_model(values.workdir, **{k: values[k].value for k in LOAD})
  to = load_model(values.to, ema=values.ema) if values.to else None
  text = values.operator or ("mask" if values.mask else None)
  if values.mask and text != "mask":
    raise UserError(f"--mask and --operator={text}: one at a time")
  if text == "mask" and not values.mask:
    raise UserError("--operator=mask needs --mask=m.png")
  return Editor(sampler, how, operator_of(text, sampler.shape) if text else None, to)


class Work(NamedTuple):
  """An edit that was checked, before it is done.

  Attributes:
    editor: What does it.
    originals: The images.
    keep: Masks [N, H, W, 1], or None.
    settings: All knobs.
    names: Of the results.
    infos: What each result's file says of how it was made.
    out, page: Where results go.
    command: Which does it again.
    copies: What looks for copies of training images among them, or None.
  """

  editor: Editor
  originals: list[Original]
  keep: np.ndarray | None
  settings: dict[str, float]
  names: list[str]
  infos: list[dict[str, Any]]
  out: str
  page: pathlib.Path | None
  command: str
  copies: memorisation.Copies | None = None

  @property
  def images(self) -> np.ndarray:
    """What was read, uint8 [N, ...]."""
    return np.stack([o.x for o in self.originals])

  def run(self, values: flags.FlagValues) -> edit_page.Edits:
    """Does it."""
    editor, x = self.editor, self.images
    whole = bool(values.original) or editor.operator is None or editor.operator.name == "mask"
    known = editor.known(x, self.keep) if whole else x
    count = len(self.names) // len(x) if editor.method.wants != "image" else len(self.names)
    times: list[float] = []
    rows: dict[str, Any] = {"keep": None if self.keep is None else np.repeat(self.keep, count, 0)}
    inputs = np.repeat(known, count, 0)
    if editor.method.wants == "image":
      inputs = np.repeat(known[:1], count, 0)
      rows |= {"second": np.repeat(known[1:], count, 0), "share": np.linspace(0, 1, count)}
    made = editor(
      inputs,
      **rows,
      labels=words(editor.to or editor.sampler, values.labels),
      source=words(editor.sampler, values.source),
      seed=values.seed,
      batch=values.batch,
      times=times,
      **{k: v for k, v in self.settings.items() if np.isfinite(v)},
    )
    before = x if whole and x.shape[1:] == made.shape[1:] else None
    copies = self.copies and self.copies(made, before, f"results of {editor.how}")
    names = [o.path.name for o in self.originals]
    return edit_page.Edits(editor, names, x, known, self.keep, made, whole, times, copies)

  def write(self, edits: edit_page.Edits) -> None:
    """Results, then the page."""
    strip = len(edits.made) if self.editor.method.wants == "image" else None
    infos = self.infos
    if edits.copies:
      print(edits.copies.line())
      infos = infos if self.page else [i | {"copies": edits.copies.card} for i in infos]
    edit_outputs.write(self.out, self.names, edits.made, infos, strip)
    if self.page:
      made = edit_outputs.shared(self.infos)
      edit_outputs.write_page(self.page, *edit_page.page(edits, self.settings, made, self.command))


def prepared(values: flags.FlagValues, knobs: Mapping[str, float]) -> Work:
  """Everything read and checked, and nothing written or drawn yet."""
  page, how = edit_outputs.page_of(values.out, values.page or None), how_of(values)
  editor = editor_of(values, how)
  settings = editor.settings(knobs)
  operator, shape = editor.operator, editor.sampler.shape
  if operator and not values.original:
    shape = operator.shape(shape)
  originals = read_images(values.image, shape, not values.no_resize)
  keep, masks = None, [None] * len(originals)
  if values.mask:
    keep, masks = read_masks(values.mask, originals, editor.sampler.shape, values.invert_mask)
  names, which = names_of(values, editor, originals)
  command = command_of("edit", values)
  info = editor.sampler.card | {
    "edited": True,
    "how": how,
    "operator": operator and operator.text,
    "to": editor.to and editor.to.card,
    "knobs": json_knobs(settings),
    "seed": values.seed,
    "labels": values.labels,
    "command": command,
  }
  if editor.method.wants == "image":
    info["to_image"] = source_of(originals[1], None)
  infos = [info | source_of(originals[i], masks[i]) | {"index": k} for k, i in enumerate(which)]
  edit_outputs.check(values.out, page, names, infos, [*originals, *filter(None, masks)])
  copies = memorisation.open_copies(values.copies, values.to or values.workdir)
  return Work(editor, originals, keep, settings, names, infos, values.out, page, command, copies)


def source_of(original: Original, mask: Original | None) -> dict[str, Any]:
  """Of which files a result is."""
  source = {"source": printable(original.path.name), "sha256": original.sha256}
  return source | ({} if mask is None else {"mask_sha256": mask.sha256})


def names_of(
  values: flags.FlagValues, editor: Editor, originals: list[Original]
) -> tuple[list[str], list[int]]:
  """Names of all results, and the image that each is of."""
  if editor.method.wants == "image":
    if len(originals) != 2:
      raise UserError(f"--how={editor.how} goes from image to image: give --image=a.png,b.png")
    if values.num:
      raise UserError(f"--num is not for --how={editor.how}, which makes --frames")
    if values.frames < 2:
      raise UserError(f"--frames={values.frames}: want at least 2")
    return [f"{i:03d}.png" for i in range(values.frames)], [0] * values.frames
  num = values.num or 1
  which = [i for i in range(len(originals)) for _ in range(num)]
  return edit_outputs.names_of(originals, num), which


def words(sampler: Sampler, text: str | None) -> list[int | str] | None:
  """ "0,cat" -> what `Sampler.labels` takes."""
  return None if text is None else sampler.numbers([w.strip() for w in text.split(",")])
