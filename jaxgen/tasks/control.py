"""Samples with attributes that you ask for: GAN-Control, or guided diffusion.

  jaxgen control --workdir E --set slant=0.3,thickness=2 --out x.png
  jaxgen control --workdir D --predictor slant,thickness --set slant=0.3 --out x.png
  jaxgen control --workdir D --predictor judge:J --set class=3 --out threes/
  jaxgen control --workdir P --predictor mine.brightness --set brightness=0.7 --out x.png
  jaxgen control --table --workdir E,D --predictor slant,thickness --out report
  jaxgen control --table --workdir D --predictor slant,judge:J --seeds 3 --out report

E is a workdir of configs/gan_control.py:digits-encoder or the like; D of any
diffusion model, which is not trained again. A picture shows samples as they
come in its first row and as asked for in its second: the same latents or the
same noise, so that what else differs is what the method moved. Values are in
the predictor's own units; of several numbers with colons, colour=0.2:0:-0.1.

--table measures both: how near attributes come to what was asked for, and how
little else moves, with intervals. The class that a sample then has is as the judge
of the data sees it: of configs/judge.py and seed 0, so train J with another seed.
Its page is report/index.html.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxgen import files
from jaxgen.core import on_device
from jaxgen.errors import UserError, nearest
from jaxgen.monitor import results
from jaxgen.monitor.results import kind_of
from jaxgen.sampling.attribute_sampling import EncoderControl, GuidedControl, Request, open_control
from jaxgen.sampling.output import json_knobs, part_of, write
from jaxgen.sampling.presets import KNOBS, knobs_from_flags
from jaxgen.tasks import control_table, memorisation
from jaxgen.tasks.commands import command_of

Control = EncoderControl | GuidedControl
IN_BUCKETS = ("workdir", "out")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("workdir", None, "of a control encoder or a diffusion model; with --table several")
  flag("set", None, "what is asked for: slant=0.3,thickness=2")
  flag("out", None, "x.png, x.npz or a folder; of --table a folder")
  flag(
    "predictor",
    None,
    "for diffusion: slant, thickness, colour, contrast, judge:WORKDIR, or a function of yours, "
    "module.function; several with commas",
  )
  flag("labels", None, "one or several classes, by number or name; default: each in turn")
  flag("knobs", None, "any others of the model: name=number, with commas between")
  memorisation.define(values)
  flags.DEFINE_bool("table", False, "measure instead: a page in --out", flag_values=values)
  number = functools.partial(flags.DEFINE_float, flag_values=values)
  number("tolerance", None, "for diffusion: how near is near enough, in the attribute's units")
  number("strength", 1.0, "for diffusion: of guidance; 0 is none")
  for name in KNOBS:
    if name not in ("tolerance", "strength"):
      number(name, None, f"{KNOBS[name]} (where the model has this knob)")
  for name, default, text in (
    ("num", None, "how many; default: 8, of --table 100"),
    ("seed", 0, "of all randomness"),
    ("seeds", None, "of --table: draws of so many samples each; default: 1"),
    ("batch", 64, "samples drawn at once"),
  ):
    flags.DEFINE_integer(name, default, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  if not (values.workdir and values.out):
    raise UserError("control needs --workdir=W and --out=x.png, x.npz or a folder")
  predictors = values.predictor.split(",") if values.predictor else []
  guided = {"strength": values.strength}
  if values.tolerance is not None:
    if not values.tolerance > 0:
      raise UserError(f"--tolerance={values.tolerance:g}: want more than 0")
    guided["tolerance"] = values.tolerance
  workdirs = values.workdir.split(",")
  if values.table:
    if values.set:
      raise UserError("--set is for samples; with --table what real images have is asked for")
    print(
      control_table.run(
        [(w, open_control(w, predictors, **guided)) for w in workdirs],
        files.path(values.out),
        num=values.num or 100,
        seed=values.seed,
        batch=values.batch,
        knobs=knobs_from_flags(values),
        command=command_of("control", values),
        seeds=1 if values.seeds is None else values.seeds,
        copies=values.copies,
      )
    )
    return
  if values.seeds is not None:
    raise UserError("--seeds is for --table")
  if len(workdirs) > 1:
    raise UserError("--workdir takes one here; several are for --table")
  if not values.set:
    raise UserError("--set names nothing: want --set=slant=0.3 or the like")
  draw(values, open_control(values.workdir, predictors, **guided))


def draw(values: flags.FlagValues, control: Control) -> None:
  """Writes samples that have what is asked for, and says how near they come."""
  kind, num = kind_of(values.out), values.num or 8
  target = parse(values.set, control)
  sampler, knobs = control.sampler, knobs_from_flags(values)
  labels = sampler.labels(num, labels_of(values.labels))
  if values.labels is None:  # a class that is asked for stands in their place
    asked = [a for a in control.attributes if a.name in target]
    labels = control_table.labels_for(control, asked, np.arange(num))
  info = sampler.card | {
    "made by": f"jaxgen control, {control.how}",
    "command": command_of("control", values),
    "set": {k: list(v) for k, v in target.items()},
    "seed": values.seed,
    "num": num,
    "knobs": json_knobs(sampler.settings(knobs)),
  }
  if isinstance(control, GuidedControl):
    info |= {
      "predictor": values.predictor,
      "tolerance": control.tolerance,
      "strength": control.strength,
    }
  if kind:
    results.check_file(values.out)
  else:
    results.check_folder(values.out, part_of(info, num))
  wanted = {k: np.tile(np.float32(v), (num, 1)) for k, v in target.items()}
  request = Request(wanted, np.arange(num), labels, values.seed, knobs, min(values.batch, num))
  copies = memorisation.open_copies(values.copies, values.workdir)
  before, after = control.make(request)
  for line in reached(control, target, before, after):
    print(line)
  if check := copies and copies(after, before, "samples with what is asked for"):
    print(check.line())
    info |= {"copies": check.card}
  if kind == ".png":
    write(values.out, np.concatenate([before, after]), None, info, columns=num)
  else:
    known = labels if labels is None or labels.min() >= 0 else None
    write(values.out, after, known, info, more={"before": before})
  print(f"{num} samples, {control.passes(request)} each -> {values.out}")


def reached(control: Control, target: dict[str, Any], before: np.ndarray, after: np.ndarray):
  """Lines: what was asked for, what samples had and have now."""
  for a in control.attributes:
    if a.name not in target:
      continue
    was, now = (np.asarray(a.value(on_device({"x": jnp.asarray(x)})["x"])) for x in (before, after))
    if a.classes:
      wish = int(target[a.name][0])
      share = lambda v, wish=wish: np.mean(v.argmax(-1) == wish)
      yield f"{a.name} {wish}: of {share(was):.0%} of samples as they come, of {share(now):.0%} now"
    else:
      numbers = lambda v: ":".join(f"{x:.3g}" for x in v)
      off = np.abs(now - target[a.name]).mean()
      yield (
        f"{a.name} {numbers(target[a.name])}: was {numbers(was.mean(0))}, "
        f"is {numbers(now.mean(0))} (means of {len(now)}), off by {off:.2g}"
      )


def parse(text: str, control: Control) -> dict[str, tuple[float, ...]]:
  """ "slant=0.3,colour=0:0.1:0" -> values by attribute; UserError for others."""
  known = {a.name: a for a in control.attributes}
  target = {}
  for word in text.split(","):
    name, equals, value = word.partition("=")
    if name not in known:
      hint = nearest(name, known)
      if name == "class" and control.sampler.classes:
        hint = ": this model takes labels, say --labels"
      raise UserError(f"--set={word}: there is no attribute {name!r}{hint}")
    try:
      target[name] = tuple(float(v) for v in value.split(":"))
    except ValueError:
      raise UserError(f"--set={word}: want {name}=number") from None
    if not equals or not np.isfinite(target[name]).all():
      raise UserError(f"--set={word}: want {name}=number, a finite one")
    check_size(known[name], target[name], control)
  return target


def check_size(attribute: Any, value: tuple[float, ...], control: Control) -> None:
  """UserError for more or fewer numbers than an attribute has, or no such class."""
  if attribute.classes:
    if len(value) > 1 or value[0] % 1 or not 0 <= value[0] < attribute.classes:
      raise UserError(
        f"--set: {attribute.name} is a number of a class, 0 to {attribute.classes - 1}"
      )
    return
  x = jax.ShapeDtypeStruct((1, *control.sampler.shape), jnp.float32)
  size = jax.eval_shape(attribute.value, x).shape[-1]
  if len(value) != size:
    raise UserError(
      f"--set: {attribute.name} has {size} numbers, and here are {len(value)}: want them with "
      "colons between"
    )


def labels_of(text: str | None) -> Any:
  """ "3" or "3,nature" -> what `Sampler.labels` takes."""
  if text is None:
    return None
  words = text.split(",")
  return [int(w) if w.lstrip("-").isdecimal() else w for w in words]
