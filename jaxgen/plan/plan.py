"""Ask the compiler: does it fit, how fast would it be, what must be sent?

  jaxgen plan --config configs/adm_imagenet64.py --topology v5e:16x16
  jaxgen plan --config configs/adm_imagenet256.py --topology v5p:8x8x8 \\
    --per_chip 4 --config.mesh.fsdp=8 --json plan.json
  jaxgen plan --config configs/biggan_deep.py --topology v5e:16x16:2
  jaxgen plan --config configs/digits_adm.py --sample --batch 64

Nothing is run and no data are opened; no TPU need be there, but its compiler:
pip install 'jaxgen[tpu]'. `--topology here`, the default, compiles for this
machine's own devices. See launch/PLANS.md for what the numbers mean.
"""

import functools
import sys

from absl import flags

from jaxgen import files
from jaxgen.config import check_single
from jaxgen.errors import UserError
from jaxgen.experiment import check_samples
from jaxgen.monitor.progress import status_lines
from jaxgen.plan import planner, report
from jaxgen.plan.programs import parse_shape

CONFIGS = ("config",)
IN_BUCKETS = ("json",)  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag(
    "topology",
    "here",
    "kind:shape, such as v5e:16x16; kind:shape:slices, such as v5e:16x16:2; or here",
  )
  flag("shape", None, "of an example, where the config cannot say: 32,32,3")
  flag("json", None, "write the numbers to this file, too")
  integer = functools.partial(flags.DEFINE_integer, default=None, flag_values=values)
  integer("batch", help="examples of a step, in all; of --sample, those drawn at once")
  integer("per_chip", help="the same for each chip")
  flags.DEFINE_float("steps", None, "of --sample: points of the path", flag_values=values)
  switch = functools.partial(flags.DEFINE_bool, default=False, flag_values=values)
  switch("sample", help="the sampler in place of the train step")
  switch("largest", help="look for the largest batch that fits")
  switch("profile", help="what the cycles are spent on")


def main(values: flags.FlagValues) -> None:
  """The verb."""
  check_flags(values)
  request = planner.Request(
    values.config,
    values.topology,
    values.sample,
    values.batch,
    values.per_chip,
    parse_shape(values.shape),
    {} if values.steps is None else {"steps": values.steps},
  )
  with status_lines(sys.stderr) as progress:
    result = planner.plan(request, progress)
    if values.largest:
      result["largest"] = planner.largest(request, result, progress)
  print(report.plan(result))
  if values.profile:
    print("\n" + report.profile(result))
  if values.json:
    files.write_json(values.json, result)


def check_flags(values: flags.FlagValues) -> None:
  """UserError unless the flags make sense together."""
  if values.config is None:
    raise UserError("plan needs --config=configs/x.py")
  check_single(values.config, "plan")
  if values.sample:
    check_samples(values.config, "the model of this config")
  if values.batch is not None and values.per_chip is not None:
    raise UserError("give either --batch or --per_chip")
  for name in ("batch", "per_chip"):
    if values[name].value is not None and values[name].value < 1:
      raise UserError(f"{name}={values[name].value}: want at least 1")
  if values.steps is not None and not values.sample:
    raise UserError("--steps goes with --sample")
