"""`jaxgen VERB --flags`: the verbs, and how they end.

A user's mistake ends in one line on stderr and status 2; Ctrl-C in 130.
"""

import hashlib
import importlib
import math
import os
import pathlib
import platform
import re
import sys
import types
import warnings
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxgen import config as configs
from jaxgen import files
from jaxgen.config import LARGEST, SEEDS
from jaxgen.distributed import lobby, watchdog
from jaxgen.errors import UserError, nearest, printable

VERBS = {  # verb: (module, what it does)
  "demo": ("compare.demo", "train, sample, judge and compare three families on real digits"),
  "train": ("train", "train the model of a config, or go on where it stopped"),
  "sample": ("sample", "draw samples from a trained model"),
  "encode": ("sampling.encode", "write the latents of a data set, by a trained codec"),
  "translate": ("tasks.translate", "images into images, by pix2pix, Palette or CycleGAN"),
  "evaluate": ("evaluate", "judge the samples of a trained model, or a file of samples"),
  "choose": ("compare.choose", "for my data: diffusion model, GAN or VAE, under a budget"),
  "compare": ("compare.compare", "several models side by side: one report"),
  "sweep": ("compare.sweep", "one model under many settings: quality against cost"),
  "trilemma": ("compare.trilemma", "many models, every setting: who is good, diverse and fast"),
  "modes": ("compare.modes", "which rules lose modes: GANs, diffusion and VAE side by side"),
  "likelihood": (
    "evaluation.bits_per_dim",
    "bits per dimension of real data, by a diffusion model",
  ),
  "control": ("tasks.control", "samples with attributes that you ask for: slant, colour, ..."),
  "edit": ("tasks.edit", "inpaint, restore and change images by a trained diffusion model"),
  "anomaly": ("tasks.anomaly", "find what is strange among images, by a model of what is normal"),
  "augment": ("tasks.augment", "train classifiers on generated data: when it helps, and whose"),
  "study": ("study.study", "ask people which of two images a camera took"),
  "bench": ("bench.bench", "measure: train steps, sampling, data"),
  "plan": ("plan.plan", "what a machine would make of it, by its compiler alone"),
  "prepare": ("data.prepare", "bring a dataset of the catalogue into place"),
  "import": ("convert.import_", "make a workdir of somebody else's checkpoint"),
  "export": ("convert.export", "write trained weights as somebody else's checkpoint"),
}

AGAIN = 75  # exit code: nothing is wrong here, start it again

# Started as several processes, alike, these do one thing together,
MANY_HOSTS = {
  *("jaxgen.train", "jaxgen.sample", "jaxgen.evaluate", "jaxgen.bench.bench"),
  *(f"jaxgen.compare.{verb}" for verb in ("compare", "sweep", "trilemma", "choose", "demo")),
}
# these each its own (of a machine's disk, or of no device), and all others none.
EACH_HOST = {"jaxgen.data.prepare", "jaxgen.convert.import_", "jaxgen.plan.plan"}

# The least and the most of a flag's whole number, where it is not 1 and more.
RANGES = {"seed": (0, SEEDS - 1), "port": (0, 65535), "seeds": (1, 10_000)} | dict.fromkeys(
  ("step", "guide_step", "stage", "workers", "size", "standing", "mix", "direction"), (0, LARGEST)
)

KERNELS = ("", "xla", "cudnn", "pallas")  # of attention, in the environment

NEEDED = ("workdir", "out", "what", "rules")  # verbs say what these may be

WANTED = {  # what Python and absl say of a value -> what it should be
  "invalid literal for int": "a whole number",
  "could not convert string to float": "a number",
  r".*Non-boolean argument": "true or false",
}


def main(argv: Sequence[str] | None = None) -> None:
  """The console script: runs a verb and exits with its status."""
  argv = list(sys.argv if argv is None else argv)
  verb = argv[1] if len(argv) > 1 else "help"
  verb = {"eval": "evaluate"}.get(verb, verb)
  if verb in VERBS:
    run(f"jaxgen.{VERBS[verb][0]}", [f"jaxgen {verb}", *argv[2:]])
  elif verb in ("help", "--help", "-h"):
    print("usage: jaxgen VERB [--flags]     (jaxgen VERB --help: its flags)\n")
    print("\n".join(f"  {k:10} {v}" for k, (_, v) in VERBS.items()))
  else:
    fail(f"there is no verb {verb!r}" + nearest(verb, VERBS), 2)


def run(module: str, argv: Sequence[str] | None = None) -> None:
  """Parses a verb module's flags and runs its `main(flags)`; never returns."""
  argv = list(sys.argv if argv is None else argv)
  try:
    if module in MANY_HOSTS:
      lobby.enter_early(os.environ)
    verb = importlib.import_module(module)
    values = parse(verb, argv)
    check_environment()
    quiet_and_quick()
    if module in MANY_HOSTS:
      from jaxgen.distributed import join

      join.join()
    elif module not in EACH_HOST and "jax" in sys.modules:
      from jaxgen.distributed import join

      join.check_alone()
    status = verb.main(values) or 0
    if together := others():
      together.shutdown()
  except UserError as e:
    fail(files.with_addresses(str(e)), status_of(e.__cause__, e.status))
  except OSError as e:  # a full disk, a folder that may not be read
    fail(f"{e.strerror or e}: {e.filename or 'while writing'}", status_of(e, 2))
  except KeyboardInterrupt:
    fail("interrupted", 130)
  except Exception as e:
    if lack := lack_of_memory(e):
      fail(lack, 2)
    if together := others():
      together.abort_with(e)
    raise
  sys.stdout.flush()
  sys.exit(status)


def check_environment() -> None:
  """UserError for a switch with a value that means nothing: it would pass in silence."""
  if (kernel := os.environ.get("JAXGEN_ATTENTION", "")) not in KERNELS:
    raise UserError(f"JAXGEN_ATTENTION={kernel}: it is xla (the default), cudnn or pallas")


def status_of(cause: BaseException | None, otherwise: int) -> int:
  """AGAIN if a server could not be reached, for that passes by itself."""
  return AGAIN if files.is_away(cause) else otherwise


def lack_of_memory(e: Exception) -> str:
  """A line for a program that does not fit the device or the host; else ""."""
  text = str(e).partition("\n")[0]
  if not isinstance(e, MemoryError) and not text.startswith("RESOURCE_EXHAUSTED"):
    return ""
  return (
    f"out of memory ({text or 'on the host'}): take a smaller batch (--config.batch, or "
    "--batch of samples), the same in parts (--config.accumulate), or a smaller net"
  )


def others() -> types.ModuleType | None:
  """`jaxgen.distributed.join`, if this is one of several."""
  module = sys.modules.get("jaxgen.distributed.join")
  return module if module and module.joined() else None


def quiet_and_quick() -> None:
  """Warnings in a line of ours each; compiled programs are kept on disk."""
  if "jax" not in sys.modules:
    return  # a verb that computes nothing

  shown = set()

  def show(message, *_):
    # Once: what is damaged is met by each who reads it.
    if str(message) not in shown and not forget_damaged(str(message)):
      shown.add(str(message))
      print(f"jaxgen: {printable(message)}", file=sys.stderr)

  warnings.showwarning = show
  keep_programs()


def parse(verb, argv: list[str]) -> flags.FlagValues:
  """A verb's flags, read; every mistake in them a UserError."""
  values = flags.FlagValues()
  flags.DEFINE_bool("help", False, "show this", short_name="h", flag_values=values)
  verb.define(values)
  if "WORDS" in vars(verb) and argv[1:] and not argv[1].startswith("-"):
    argv = [argv[0], f"--what={argv[1]}", *argv[2:]]
  if "config" in vars(verb).get("CONFIGS", ()):
    argv = with_config(values, argv)
  try:
    rest = values(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise UserError(one_line(e)) from e
  if values.help:
    print((verb.__doc__ or "").strip() + "\n")
    for name in sorted(n for n in values if "." not in n and len(n) > 1):
      if name != "flagfile" and name != "undefok":  # absl's own
        flag = values[name]
        default = "" if flag.default is None else f" [{flag.default}]"
        print(f"  --{name}: {flag.help}{default}")
    sys.exit(0)
  check_values(values, ("config", *vars(verb).get("IN_BUCKETS", ())))
  if len(rest) > 1:
    raise UserError(f"what is {rest[1]!r}? Everything is given as --flag=value")
  flags.FLAGS.mark_as_parsed()  # grain's worker processes ask for it
  return values


def check_values(values: flags.FlagValues, in_buckets: Sequence[str] = ()) -> None:
  """UserError for a flag's value that no verb could make sense of.

  What is empty is so by mistake, as a variable of a shell that is not set. Of
  the flags some may name what lies `in_buckets`.
  """
  for name in values:
    value = values[name].value
    if "." in name or value is None:  # (a config's are for the config)
      continue
    if name not in in_buckets and any(s in str(value) for s in files.SCHEMES):
      others = ", ".join(f"--{n}" for n in in_buckets)
      raise UserError(
        f"--{name} takes a path of this machine, and no bucket's address"
        + (f", as {others} may be" if others else ": copy it here, or mount the bucket")
      )
    empty = value in ("", []) or isinstance(value, list) and "" in value
    if empty and values[name].present and name not in NEEDED:
      raise UserError(f"--{name}={','.join(value)} is empty, or a part of it: leave that out")
    kind = values[name].flag_type()
    if kind == "int":
      least, most = RANGES.get(name, (1, LARGEST))
      if not least <= value <= most:
        want = f"least {least}" if value < least else f"most {most}"
        raise UserError(f"--{name}={value}: want at {want}")
    elif kind == "float" and not math.isfinite(value):
      raise UserError(f"--{name}={value}: want a finite number")


def check_overrides(config: ConfigDict, argv: Sequence[str]) -> None:
  """UserError for an override of a field that is not there: which, and where."""
  for word in argv:
    path = re.match(r"--?(?:no)?config\.([^=]*)", word)
    place = config
    for i, key in enumerate(path[1].split(".") if path else ()):
      name, *indices = re.split(r"[\[\]]+", key.rstrip("]"))
      if not isinstance(place, ConfigDict) or name not in place:
        where = ".".join(["config", *path[1].split(".")[:i]])
        hint = (
          nearest(name, place)
          if isinstance(place, ConfigDict) and place
          else ": it is no group of fields"
        )
        raise UserError(f"{where} has no {name!r}{hint}")
      place = place[name]
      for index in indices:
        try:
          place = place[int(index)]
        except (ValueError, LookupError, TypeError):
          raise UserError(f"config.{path[1]}: there is no [{index}]") from None


def one_line(e: Exception) -> str:
  """What absl and ml_collections mean, in one line."""
  text = str(e.args[0] if e.args else e)
  for how, want in WANTED.items():
    text = re.sub(f"(flag [^:]*): {how}.*", rf"\1: want {want}", text)
  return text


def fail(line: str, status: int) -> None:
  """One line, and out; together with all others, if there are any."""
  if together := others():
    together.abort(status, line)
  lobby.tell(status, line)
  watchdog.exit_now(status, line)


def with_config(values: flags.FlagValues, argv: list[str]) -> list[str]:
  """Defines --config with its overrides; resolves where the file lies."""
  argv, config = list(argv), None
  for i, word in enumerate(argv):
    if word in ("--config", "-config") and i + 1 < len(argv):
      argv[i : i + 2] = [f"--config={argv[i + 1]}"]
      word = argv[i]
    if word.startswith(("--config=", "-config=")):
      path = configs.locate(word.partition("=")[2])
      config = configs.load(path)  # says what is wrong with it, if anything
      argv[i] = f"--config={path}"
  if config is not None:
    check_overrides(config, argv)
  config_flags.DEFINE_config_file(
    "config",
    None,
    "configs/x.py[:arg]; override with --config.a.b=value",
    flag_values=values,
    sys_argv=argv,
  )
  return argv


PROGRAM = re.compile(r".+-[0-9a-f]{64}-cache")  # as jax names its files
DAMAGED = "Error reading persistent compilation cache entry"


def keep_programs() -> None:
  """Lets jax keep what it compiles, where JAX_COMPILATION_CACHE_DIR says.

  By default that is a folder in the user's own cache: programs on disk are
  trusted like code. Where none can be made, programs are not kept.
  """
  import jax  # here, for some verbs compute nothing

  if named := jax.config.jax_compilation_cache_dir:
    files.path(named)  # from here on jax reaches buckets as we do
    return
  folder = own_folder()
  try:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
  except OSError:
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))


def own_folder() -> pathlib.Path:
  """One for each kind of machine, for homes are shared and CPUs differ.

  Jax does not look at the CPU: a program for one may crash on another, or give
  other bits.
  """
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = [platform.processor()]
  tell = ("model name", "flags", "Features", "CPU ")  # x86 and ARM
  kind = sorted({line for line in lines if line.startswith(tell)} or lines)
  digest = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:8]
  return files.cache() / "xla" / f"{platform.machine()}-{digest}"


def forget_damaged(message: str) -> bool:
  """Whether a warning was of a torn program, which is mended here.

  Jax writes programs in place, so a kill may tear one; it then compiles anew,
  but never overwrites. Our own folder is emptied: all in it can be remade.
  """
  if not message.startswith(DAMAGED):
    return False
  import jax

  folder = own_folder()
  if jax.config.jax_compilation_cache_dir == str(folder):
    for file in folder.iterdir():
      if PROGRAM.fullmatch(file.name) and file.is_file():
        file.unlink(missing_ok=True)
  return True


if __name__ == "__main__":
  main()
