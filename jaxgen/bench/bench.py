"""Measure: train steps, sampling, data, features of an evaluation, checkpoints.

  jaxgen bench train --config configs/digits_gan.py --json speed.json
  jaxgen bench sample --workdir W --batch 64 --steps 25
  jaxgen bench data --data digits --batch 256
  jaxgen bench eval --protocol adm --size 64
  jaxgen bench checkpoint --config configs/adm_imagenet64.py --workdir /disk

`sample` takes --config in place of --workdir and then draws with untrained
weights. `data` with --config also times the train step that is to be fed. `eval`
times FID's network, with random weights. `checkpoint` saves and restores the state
of a config in a new folder below --workdir, beside plain writes and reads.

Several processes take their steps and draw together, read their shares and look each
at images of its own, all at once: numbers are of all together, by the clock of process
0. `checkpoint` is for one, and for a disk of its machine.
"""

import contextlib
import functools
import sys
import time
from typing import Any

import jax
from absl import flags

from jaxgen import files, sharding
from jaxgen.bench import device, tables
from jaxgen.bench.checkpoints import checkpoint_speed
from jaxgen.bench.device import Progress
from jaxgen.bench.extraction import extraction_speed
from jaxgen.bench.sampling import fresh_sampler, sampling_speed, time_stages
from jaxgen.bench.training import Training, options, training_speed
from jaxgen.config import LARGEST, check_single
from jaxgen.data import pipeline
from jaxgen.data.arrays import Source
from jaxgen.data.sources import open_source
from jaxgen.data.summary import introduce
from jaxgen.distributed import cores, gather, join
from jaxgen.errors import UserError, nearest
from jaxgen.evaluation.protocols import protocol
from jaxgen.experiment import check_samples, open_data, prepare_devices
from jaxgen.monitor.progress import status_lines
from jaxgen.sampling import presets, stages
from jaxgen.sampling.sampler import load

CONFIGS = ("config",)
WORDS = {  # and the flags that each makes use of
  "train": ("config", "steps"),
  "sample": ("config", "workdir", "ema", "step", "batch", *presets.KNOBS),
  "data": ("config", "data", "size", "batch", "workers"),
  "eval": ("protocol", "size", "batch"),
  "checkpoint": ("config", "workdir"),
}
IN_BUCKETS = ("workdir", "json", "data")  # flags that take gs://bucket/name


def define(values: flags.FlagValues) -> None:
  """The verb's flags."""
  flag = functools.partial(flags.DEFINE_string, flag_values=values)
  flag("what", None, "train, sample, data, eval or checkpoint; may be said without --what=")
  flag("workdir", None, "sample: of a trained model; checkpoint: where to write")
  flag("ema", None, "sample: profile of averaged weights")
  flag("data", None, "data: a data set, such as digits")
  flag("protocol", None, "eval: adm (default), pytorch-fid, torch-fidelity, clean-fid or edm")
  flag("json", None, "write the numbers to this file, too")
  integer = functools.partial(flags.DEFINE_integer, default=None, flag_values=values)
  integer("step", help="sample: of the checkpoint; default: the last")
  integer("batch", help="sample, data, eval: examples at once")
  integer("size", help="data: of images, where they must be resized; eval: of images [64]")
  integer("workers", help="data: processes that read ahead")
  flags.DEFINE_float("seconds", 5.0, "each measurement takes about so long", flag_values=values)
  for name in presets.KNOBS:
    text = "sample: knob of the sampler, where it has it"
    if name == "steps":
      text = "train: how many to time; sample: knob of the sampler"
    flags.DEFINE_float(name, None, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
  """The verb."""
  check_flags(values)
  # Compile times are those of compiling, not of reading what was kept.
  jax.config.update("jax_enable_compilation_cache", False)
  bench(values)


def bench(values: flags.FlagValues) -> None:
  """Measures, prints the table, writes the JSON."""
  measure = {
    "train": (bench_train, tables.train),
    "sample": (bench_sample, tables.sample),
    "data": (bench_data, tables.data),
    "eval": (bench_eval, tables.extraction),
    "checkpoint": (bench_checkpoint, tables.checkpoint),
  }[values.what]
  if values.config is not None and values.what != "checkpoint":
    prepare_devices([values.config])
  first = join.is_main_process()
  with status_lines(sys.stderr) if first else contextlib.nullcontext(lambda text: None) as progress:
    result = measure[0](values, progress)
  if not first:
    return
  machine = device.machine()
  print("\n".join([tables.machine(machine), "", measure[1](result)]))
  if values.json:
    files.write_json(values.json, {"bench": values.what, "machine": machine, **result})


def check_flags(values: flags.FlagValues) -> None:
  """UserError unless the flags make sense together."""
  what, config, steps = values.what, values.config, values.steps
  if what not in WORDS:
    hint = nearest(what, WORDS) if what else ""
    raise UserError(f"bench needs to know what: {', '.join(WORDS)}{hint}")
  for name in sorted({n for names in WORDS.values() for n in names}):
    if name not in WORDS[what] and values[name].value is not None:
      raise UserError(f"bench {what} has no use for --{name}")
  place = values.workdir if what == "sample" else values.data
  if config is None and what != "eval" and not place:
    other = {"sample": " or --workdir=W", "data": " or --data=digits"}
    raise UserError(f"bench {what} needs --config=configs/x.py{other.get(what, '')}")
  if config is not None:
    if values.data or values.workdir and what == "sample":
      raise UserError("give either --config or " + ("--workdir" if values.workdir else "--data"))
    check_single(config, "bench")
    if what == "sample":
      check_samples(config, "the model of this config")
    if values.size:
      raise UserError("--size goes with --data; a config says --config.data.size")
  if values.batch is not None and values.batch < 1:
    raise UserError(f"batch={values.batch}: want at least 1")
  if values.size is not None and values.size < 1:
    raise UserError(f"size={values.size}: want at least 1")
  if what == "train" and steps is not None and not (steps.is_integer() and 1 <= steps <= LARGEST):
    raise UserError(f"steps={steps:g}: want a whole number, at least 1 and at most {LARGEST}")
  if not 0 < values.seconds < float("inf"):
    raise UserError(f"seconds={values.seconds}: want more than 0")


def bench_train(values: flags.FlagValues, progress: Progress) -> dict[str, Any]:
  """Train steps of a config."""
  steps = None if values.steps is None else int(values.steps)
  speed = training_speed(values.config, steps, values.seconds, progress)
  return {"model": values.config.model.name, **speed}


def bench_sample(values: flags.FlagValues, progress: Progress) -> dict[str, Any]:
  """Sampling from a trained model, or from a config's untrained one."""
  progress("loading the model")
  batch = 64 if values.batch is None else values.batch
  if values.config is not None:
    sampler = fresh_sampler(values.config)
  else:
    stages.prepare_devices([values.workdir], batch)
    sampler = load(values.workdir, ema=values.ema, step=values.step)
  knobs = {k: values[k].value for k in presets.KNOBS if values[k].value is not None}
  result = {"model": type(sampler.model).__name__, **sampler.card}
  result |= sampling_speed(
    sampler, 100 * batch, batch, progress=progress, seconds=values.seconds, **knobs
  )
  if times := time_stages(sampler, batch, 100, values.seconds, **knobs):
    result["stages"] = times
  return result


def bench_data(values: flags.FlagValues, progress: Progress) -> dict[str, Any]:
  """How fast batches come: to the host, to the device; and are needed."""
  config = values.config
  if config is None:
    source = open_source(values.data, size=values.size)
    how = {"batch": 128, "seed": 0, "workers": 0}
    how |= {"process": jax.process_index(), "processes": jax.process_count()}
  else:
    source, how = open_data(config), options(config)
  if join.is_main_process():
    introduce(source, "train" if config is None else config.data.split)
  how |= {k: values[k].value for k in ("batch", "workers") if values[k].value is not None}
  rows = {}
  for workers in sorted({0, how["workers"]}):
    progress(f"reading with {workers or 'no'} workers")
    own = pipeline.throughput(source, seconds=values.seconds, **how | {"workers": workers})
    rows[f"read, {workers} workers"] = all_together(own)
  progress("reading on to the device")
  rows["on to the device"] = to_device(source, values.seconds, **how)
  result = {"source": source.name, "batch": how["batch"], "workers": how["workers"], "rows": rows}
  needed = None
  if config is not None:
    training = Training(config, progress)
    progress("timing the train step")
    training.time_fixed(1)
    needed = training.time_fixed(training.steps_in(values.seconds))["images_per_s"]
  return result | {"needed_per_s": needed}


def bench_eval(values: flags.FlagValues, progress: Progress) -> dict[str, Any]:
  """Features of FID, as an evaluation by a protocol makes them."""
  how = protocol(values.protocol or "adm")
  cores.make_devices([] if values.batch is None else [values.batch])
  return extraction_speed(how, values.size or 64, values.batch, values.seconds, progress)


def all_together(own: dict[str, float]) -> dict[str, float]:
  """Rates of this process's share -> of all shares, which are read at once."""
  rates = gather.total({k: v for k, v in own.items() if k.endswith("_per_s")})
  return own | rates


def bench_checkpoint(values: flags.FlagValues, progress: Progress) -> dict[str, Any]:
  """Saving and restoring a config's state."""
  if join.joined():
    raise UserError(join.ALONE)
  speed = checkpoint_speed(values.config, values.workdir, progress)
  return {"model": values.config.model.name, **speed}


def to_device(source: Source, seconds: float, **how) -> dict[str, float]:
  """Like pipeline.throughput, up to where the train step takes over."""
  mesh = sharding.make_mesh()
  sharding.check_batch(how["batch"], 1, mesh)
  opened = time.perf_counter()
  with contextlib.closing(pipeline.batches(source, **how)) as stream:
    batches = sharding.prefetch(stream, mesh)
    jax.block_until_ready(next(batches))
    start = time.perf_counter()
    count = size = 0
    while (elapsed := time.perf_counter() - start) < seconds or not count:
      batch = jax.block_until_ready(next(batches))
      count += len(jax.tree.leaves(batch)[0])  # (of a batch, all of it: nothing waits for others)
      size += sum(a.nbytes for a in jax.tree.leaves(batch))
  return {
    "examples_per_s": count / elapsed,
    "mb_per_s": size / elapsed / 1e6,
    "first_batch_s": start - opened,
    "seconds": elapsed,
  }
