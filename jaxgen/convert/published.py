"""Published checkpoints known by their shapes, and configs for other files.

A file of ADM does not say how many heads attention has, in which order its
channels are, nor what the noise was: all of that is needed, and a wrong one
gives wrong answers without complaint. So it is known, told or refused.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen.errors import UserError
from jaxgen.interop.infer import Network, infer

# Files of openai/guided-diffusion and openai/improved-diffusion -> our configs.
# Those that share a config have equal shapes, heads and noise.
PUBLISHED = {
  "64x64_diffusion.pt": "adm_imagenet64",
  "128x128_diffusion.pt": "adm_imagenet128",
  "256x256_diffusion.pt": "adm_imagenet256",
  "256x256_diffusion_uncond.pt or lsun_*.pt": "adm_imagenet256:uncond",
  "512x512_diffusion.pt": "adm_imagenet512",
  "64_256_upsampler.pt": "adm_upsample256",
  "128_512_upsampler.pt": "adm_upsample512",
  **{f"{n}x{n}_classifier.pt": f"adm_classifier:{n}" for n in (64, 128, 256, 512)},
  "imagenet64_uncond_*.pt": "iddpm",
  "imagenet64_cond_270M_250K.pt": "iddpm:imagenet64_cond",
  "cifar10_uncond_*.pt": "iddpm:cifar10",
  "upsample_cond_500K.pt": "iddpm:upsample",
  "lsun_uncond_100M_*.pt": "iddpm:lsun",
}
ORDERS = {"new": True, "legacy": False}  # guided-diffusion's words
SCHEDULES = {"linear": "Linear", "cosine": "Cosine"}
HEADS_FLAGS = "--heads=4 (its --num_heads) or --head_channels=64 (its --num_head_channels)"


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a user says of a network that its file does not.

  Attributes:
    heads: Of attention: their number.
    head_channels: Or channels of each.
    heads_up: Their number on the way up, where it is another.
    attention_order: A key of ORDERS.
    schedule: Of the noise, a key of SCHEDULES.
  """

  heads: int | None = None
  head_channels: int | None = None
  heads_up: int | None = None
  attention_order: str | None = None
  schedule: str | None = None

  def __post_init__(self):
    words = {"attention_order": ORDERS, "schedule": SCHEDULES}
    for name, value in vars(self).items():
      if value is None:
        continue
      if name not in words and value < 1:
        raise UserError(f"--{name}={value}: want 1 or more")
      if name in words and value not in words[name]:
        raise UserError(f"--{name}={value}: want {' or '.join(words[name])}")
    if self.head_channels and (self.heads or self.heads_up):
      raise UserError(
        "--head_channels says how many heads there are at every width: leave --heads and --heads_up"
      )

  def __bool__(self):
    return any(v is not None for v in vars(self).values())

  def apply(self, c: ConfigDict) -> None:
    """Writes them into a config of a U-Net, or of a classifier."""
    net = c.model.get("net", {})
    if self and not net.get("name", "").startswith("nets.unet."):
      raise UserError(
        "--heads, --attention_order and the like are for U-Nets, "
        f"and the config is of {c.model.name}"
      )
    with c.unlocked():
      if self.heads:
        net.heads = self.heads
      if self.head_channels:
        net.update(heads=None, heads_up=None, head=self.head_channels)
        if net.name.endswith("Classifier"):
          del net.heads_up
      if self.heads_up:
        if net.name.endswith("Classifier"):
          raise UserError("a classifier has no way up: leave --heads_up")
        net.heads_up = self.heads_up
      if self.attention_order:
        net.split_first = ORDERS[self.attention_order]
      if self.schedule:
        c.model.process.name = f"diffusion.process.{SCHEDULES[self.schedule]}"


NOTHING = Facts()


def recognise(network: Network, size: int = 0) -> tuple[str, ConfigDict] | None:
  """-> whose shapes they are, and its config; None: of nobody known here.

  Args:
    network: What a file tells.
    size: Height of images, if something says so.
  """
  for file, name in PUBLISHED.items():
    path, _, arg = name.partition(":")
    c = configs.load(f"configs/{path}.py" + (f":{arg}" if arg else ""))
    if size in (0, c.data.size) and network == network_of(c):
      return file, c
  return None


def network_of(c: ConfigDict) -> Network:
  """What the file of a config's network tells."""
  net = c.model.net.to_dict()
  kind = net["name"].rpartition(".")[2]
  usual = dict(affine=True, updown=False) | (
    dict(classes=1000) if kind == "Classifier" else dict(labels=0, learned=False)
  )
  keys = ("width", "mults", "blocks", *usual)
  facts = {k: (usual | net)[k] for k in keys} | {"mults": tuple(net["mults"])}
  heights = [c.data.size >> i for i in range(len(net["mults"]))]
  attend = tuple(i for i, h in enumerate(heights) if h in net["attend"])
  return Network(
    kind, facts, attend, 3, "cond" in c.model, c.data.size if kind == "Classifier" else None
  )


def usual(
  tensors: Mapping[str, Any], source: str, size: int, facts: Facts, log: Callable[[str], None]
) -> ConfigDict:
  """A config for a file that came without one; UserError rather than a guess.

  Args:
    tensors: Of the file.
    source: Whose code it is of.
    size: Height of images, or 0.
    facts: What the user says of it.
    log: Called with a line on what was taken for granted.
  """
  if source != "adm":
    raise UserError(f"import from {source} needs a --config")
  network = infer(tensors)
  if match := recognise(network, size):
    file, c = match
    facts.apply(c)
    log(
      f"the file has the shapes of {file} and is taken for it: "
      f"{attention(c.model.net)}, {c.model.process.name}; if it is another, "
      f"say {HEADS_FLAGS}, --heads_up, --attention_order, --schedule or --config"
    )
    return c
  if network.low_res:
    raise UserError(
      "the file does not say what the upsampler enlarges: give "
      "a --config, such as configs/adm_upsample256.py"
    )
  size = network.size or size
  if not size:
    raise UserError("the file does not say how large its images are: give --size=64, or a --config")
  require(network, facts)
  c = config_for(network, size)
  facts.apply(c)
  log(
    "the file does not say, and was assumed: "
    f"{attention(c.model.net)}, {c.model.process.name} of "
    f"{c.model.precond.steps} steps, data of {c.data.source}; a --config "
    "rules"
  )
  return c


def require(network: Network, facts: Facts) -> None:
  """UserError, with the flags, for what must be known and is not."""
  lacking = []
  if network.kind == "UNet":  # guided-diffusion's classifiers have no choice
    if not (facts.heads or facts.head_channels):
      lacking.append(f"how many heads attention has: {HEADS_FLAGS}")
    if not facts.attention_order and (facts.heads != 1 or facts.heads_up not in (None, 1)):
      lacking.append(
        "the order of their channels: --attention_order=legacy, "
        "or new (its --use_new_attention_order)"
      )
  if not facts.schedule:
    lacking.append("the noise: --schedule=linear or cosine")
  if lacking:
    raise UserError(
      "the file has the shapes of no published checkpoint and "
      "does not say " + "; ".join(lacking) + ". Give these, or a "
      "--config"
    )


def config_for(network: Network, size: int) -> ConfigDict:
  """ADM's config, with the network that a file tells."""
  base = (
    "adm_imagenet64.py"
    if network.kind == "UNet"
    else (f"adm_classifier.py:{64 if size == 64 else 256}")
  )
  c = configs.load(f"configs/{base}")
  with c.unlocked():
    c.data.size = size
    c.model.net.update(network.net | {"attend": tuple(size >> i for i in network.attend)})
    classes = network.net.get("labels", network.net.get("classes"))
    c.data.classes = classes
    if network.kind == "UNet":
      c.model.net.split_first = False
      c.model.classes = classes
      if not network.net["learned"]:
        c.model.objective = {"name": "diffusion.objective.simple"}
        c.model.sampler = {"name": "diffusion.samplers.ancestral", "frac": 1.0}
  return c


def compare(tensors: Mapping[str, Any], c: ConfigDict, log: Callable[[str], None]) -> None:
  """A line, if the file is a published one's twin, but the config's heads not.

  Shapes are equal whatever heads a config says.
  """
  try:
    match = recognise(infer(tensors), c.data.size)
  except UserError:
    return  # the table of names tells more
  if match and (ours := attention(c.model.net)) != (theirs := attention(match[1].model.net)):
    log(
      f"the file has the shapes of {match[0]}, which has {theirs}; the "
      f"config says {ours}, and rules"
    )


def attention(net: ConfigDict) -> str:
  """What shapes do not tell of attention, in words."""
  heads = net.get("heads")
  words = [f"{heads} heads" if heads else f"{net.get('head') or 64} channels per head"]
  if (up := net.get("heads_up")) and up != heads:
    words.append(f"{up} on the way up")
  words.append("new attention order" if net.get("split_first") else "legacy attention order")
  return ", ".join(words)
