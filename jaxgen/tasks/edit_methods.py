"""The methods of `jaxgen edit`: each is a row of METHODS.

A method of diffusion models is a traced function of a `Scene`; nothing is trained. What
takes other models adds rows with its own `kind`, see `Method`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxgen.core import Array
from jaxgen.diffusion import inverse, inversion, repaint, samplers
from jaxgen.diffusion.denoiser import Denoise, mean
from jaxgen.diffusion.inverse import BYTES
from jaxgen.diffusion.linear import Linear
from jaxgen.diffusion.process import Noise
from jaxgen.diffusion.repaint import Jumps
from jaxgen.diffusion.traits import traits
from jaxgen.errors import UserError, nearest
from jaxgen.keys import fold
from jaxgen.models.diffusion import Diffusion

GRADIENT = 2  # evaluations that a gradient through the net costs, beside the one forwards
LINEAR = ("mask", "grey", "blur", "downsample")


class Side(NamedTuple):
  """A model as an edit walks with it: denoisers, and where to."""

  game: Diffusion
  D: Denoise  # of the label that is wanted, guided
  source: Denoise  # of the label that the image has, not guided
  path: Noise
  n: Array
  knobs: Mapping[str, Array]


class Scene(NamedTuple):
  """What a method is given inside the program; arrays [B, ...] in [-1, 1].

  Attributes:
    side: The model.
    key: [B].
    x: Images, or latents of them.
    y: What is measured of them, A x.
    A: The operator, if there is one.
    keep: Of a mask: 1 where pixels are known.
    other: The second image, to go to, and how far [B].
    to: The second model of a bridge.
  """

  side: Side
  key: Array
  x: Array | None = None
  y: Array | None = None
  A: Linear | None = None
  keep: Array | None = None
  other: tuple[Array, Array] | None = None
  to: Side | None = None


class Method(NamedTuple):
  """A way to edit.

  Attributes:
    run: Scene -> x [B, ...], traced.
    cost: (model, knobs) -> evaluations of a net for one image; a gradient through it
      counts as two more.
    about: What it does, and whose it is.
    knobs: Its own, with defaults, beside the model's.
    operators: What it can undo: of LINEAR.
    free: Whether it also works without any operator.
    latent: Whether it works on latents, too.
    encodes: Whether it writes images as noise, for which their own label counts.
    wants: What else it needs: "image" (a second one) or "model" (another one).
    kind: Of models that it takes.
  """

  run: Callable[[Scene], Array]
  cost: Callable[[Diffusion, Mapping[str, float]], float]
  about: str
  knobs: Mapping[str, float] = {}
  operators: tuple[str, ...] = ()
  free: bool = False
  latent: bool = False
  encodes: bool = False
  wants: str = ""
  kind: type = Diffusion


def sampled(side: Side, D: Denoise, x: Array, key: Array, part: tuple | None = None) -> Array:
  """x_0 by the model's own sampler, from x at the beginning of its path, or of a `part`."""
  path, n = part or (side.path, side.n)
  return side.game.run_sampler(D, x, path, n, fold(key, 1), side.knobs)


def start(scene: Scene, like: Array) -> Array:
  """Noise at the beginning of the path, shaped like x."""
  return samplers.initial(scene.side.path, fold(scene.key, 0), like.shape[1:])


def _repaint(scene: Scene) -> Array:
  side, lengths = scene.side, (scene.side.knobs[k] for k in ("jump_length", "jump_n_sample"))
  x_T, frac = start(scene, scene.x), side.knobs.get("frac", 0.0)
  key = fold(scene.key, 1)
  return repaint.repaint(side.D, x_T, side.path, side.n, key, scene.y, scene.keep, *lengths, frac)


def _conditioned(how: Callable[..., Denoise], *names: str) -> Callable[[Scene], Array]:
  """Of a function from denoisers to denoisers, and of the knobs that it takes."""

  def run(scene: Scene) -> Array:
    side = scene.side
    own = [side.knobs[name] for name in names]
    return sampled(side, how(side.D, scene.A, scene.y, *own), start(scene, scene.x), scene.key)

  return run


def _dps(scene: Scene) -> Array:
  side = scene.side
  step = inverse.following(side.path, side.n)
  D = inverse.dps(side.D, scene.A, scene.y, side.knobs["zeta"], step)
  return sampled(side, D, start(scene, scene.x), scene.key)


def _sdedit(scene: Scene) -> Array:
  side = scene.side
  part = inversion.later(side.path, side.n, side.knobs["strength"])
  D = side.D if scene.A is None else inverse.replacement(side.D, scene.A, scene.y)
  x_t = inversion.noised(scene.x, part[0], fold(scene.key, 0))
  return sampled(side, D, x_t, scene.key, part)


def _encoded(scene: Scene, x: Array) -> Array:
  side = scene.side
  return inversion.encode(side.source, x, side.path, side.n, scene.key)


def _decoded(side: Side, noise: Array, key: Array) -> Array:
  """By the ODE, whatever the model's own sampler is: encoding went along it."""
  x_T = side.path.sigma[0] * noise
  return samplers.euler(lambda x, t: mean(side.D(x, t)), x_T, side.path, side.n, key)


def _ddim(scene: Scene) -> Array:
  return _decoded(scene.side, _encoded(scene, scene.x), scene.key)


def _interpolate(scene: Scene) -> Array:
  second, share = scene.other
  noise = inversion.slerp(_encoded(scene, scene.x), _encoded(scene, second), share)
  return _decoded(scene.side, noise, scene.key)


def _bridge(scene: Scene) -> Array:
  return _decoded(scene.to, _encoded(scene, scene.x), scene.key)


def _guidance(knobs: Mapping[str, float]) -> int:
  """Evaluations of an estimate; a classifier's gradient counts as one, as in Guided.nfe."""
  return 1 + (knobs.get("guidance", 1.0) != 1) + (knobs.get("scale", 0.0) != 0)


def _walks(game: Diffusion, knobs: Mapping[str, float]) -> float:
  return game.nfe(**knobs | {"guidance": 1.0}) * _guidance(knobs)


def _slopes(game: Diffusion, knobs: Mapping[str, float]) -> float:
  return (1 + GRADIENT * (1 + knobs.get("iterations", 0))) * _walks(game, knobs)


def _jumps(game: Diffusion, knobs: Mapping[str, float]) -> float:
  jumps = Jumps(int(knobs["jump_length"]), int(knobs["jump_n_sample"]))
  return repaint.nfe(int(knobs["steps"]), jumps) * _guidance(knobs)


def _later(game: Diffusion, knobs: Mapping[str, float]) -> float:
  _, n = inversion.later(*game.path_points(knobs), knobs["strength"])
  return traits(game.sampler).nfe(int(n)) * _guidance(knobs)


def _there_and_back(ways: int) -> Callable[[Diffusion, Mapping[str, float]], float]:
  return lambda game, knobs: ways * (knobs["steps"] - 1) + knobs["steps"] * _guidance(knobs)


METHODS: dict[str, Method] = {
  "repaint": Method(
    _repaint,
    _jumps,
    "RePaint: back and forth in time, the known part put in at each step (Lugmayr et al. 2022)",
    {"jump_length": 10.0, "jump_n_sample": 10.0},
    ("mask",),
  ),
  "replacement": Method(
    _conditioned(inverse.replacement, "sigma_y"),
    _walks,
    "what is known takes the place of its estimate (Song et al. 2021; Wang et al. 2023, DDNM)",
    {"sigma_y": BYTES},
    LINEAR,
  ),
  "dps": Method(
    _dps,
    _slopes,
    "down the slope of the distance to what is known, by a fixed step (Chung et al. 2023)",
    {"zeta": 1.0},
    LINEAR,
  ),
  "pigdm": Method(
    _conditioned(inverse.pseudoinverse, "sigma_y", "spread", "weight"),
    _slopes,
    "pseudoinverse guidance: x_0 given x_t as a round Gaussian (Song et al. 2023)",
    {"sigma_y": BYTES, "spread": 1.0, "weight": 1.0},
    LINEAR,
  ),
  "reconstruction": Method(
    _conditioned(inverse.reconstruction, "weight"),
    _slopes,
    "reconstruction guidance (Ho et al. 2022, video)",
    {"weight": 2.0},
    LINEAR,
  ),
  "moments": Method(
    _conditioned(inverse.moments, "sigma_y", "iterations"),
    _slopes,
    "moment matching: x_0 given x_t with the net's own covariance (Rozet et al. 2024)",
    {"sigma_y": 0.1, "iterations": 1.0},
    LINEAR,
  ),
  "sdedit": Method(
    _sdedit,
    _later,
    "noise of some strength, then sampling; with a mask in it alone (Meng et al. 2022)",
    {"strength": 0.4},
    ("mask",),
    free=True,
    latent=True,
  ),
  "ddim": Method(
    _ddim,
    _there_and_back(1),
    "encoded as noise by its own label, decoded by another (Song et al. 2021)",
    free=True,
    latent=True,
    encodes=True,
  ),
  "interpolate": Method(
    _interpolate,
    _there_and_back(2),
    "two images encoded as noise, and what lies between (Song et al. 2021)",
    free=True,
    latent=True,
    encodes=True,
    wants="image",
  ),
  "bridge": Method(
    _bridge,
    _there_and_back(1),
    "encoded by one model, decoded by another (Su et al. 2023)",
    free=True,
    latent=True,
    encodes=True,
    wants="model",
  ),
}

# Of the methods' own knobs: least, most, whether whole; and in words.
RANGES: dict[str, tuple[float, float, bool]] = {
  "jump_length": (1, 1000, True),
  "jump_n_sample": (1, 1000, True),
  "sigma_y": (0, 10, False),
  "zeta": (0, 1e6, False),
  "spread": (1e-3, 1e3, False),
  "weight": (0, 1e6, False),
  "iterations": (1, 1000, True),
  "strength": (0, 1, False),
}
WORDS = {
  "jump_length": "of RePaint: steps that it goes back at once [10]",
  "jump_n_sample": "of RePaint: how often each stretch is walked; 1: no jumps [10]",
  "sigma_y": "deviation of the noise of what is known, in [-1, 1] [that of bytes; moments: 0.1]",
  "zeta": "of DPS: length of its step [1]",
  "spread": "of PiGDM: deviation of pixels that it takes for granted [1]",
  "weight": "of PiGDM and reconstruction: scale of the guidance [1, 2]",
  "iterations": "of moments: conjugate gradients of each step [1]",
  "strength": "of SDEdit: 0 (leaves the image) to 1 (forgets it) [0.4]; of sefa and ganspace [3]",
}


def method_of(how: str, operator: str | None) -> Method:
  """The row of a name, which takes this operator; UserError otherwise."""
  if how not in METHODS:
    raise UserError(f"--how={how}: there is no such method" + nearest(how, METHODS))
  method = METHODS[how]
  if operator is None and not method.free:
    raise UserError(
      f"--how={how} wants to know what is known: give --mask=m.png"
      + (f", or --operator={'|'.join(method.operators[1:])}" if method.operators[1:] else "")
    )
  if operator is not None and operator not in method.operators:
    others = [name for name, m in METHODS.items() if operator in m.operators]
    raise UserError(f"--how={how} takes no {operator}: {', '.join(others)} do")
  return method


def own_knobs(how: str, knobs: Mapping[str, Any], models: Mapping[str, float]) -> dict[str, float]:
  """The method's knobs, set or by default; UserError for one out of range, or another's.

  `models`: the model's own, which are checked elsewhere.
  """
  own = METHODS[how].knobs
  for name, value in knobs.items():
    if name not in own and name not in models:
      if name == "scale":
        raise UserError("--scale is of a classifier: give --classifier=WORKDIR")
      others = [k for k, m in METHODS.items() if name in m.knobs]
      raise UserError(
        f"--how={how} has no knob {name!r}"
        + (f"; {', '.join(others)} have it" if others else nearest(name, own | models))
      )
    least, most, whole = RANGES.get(name, (-jnp.inf, jnp.inf, False))
    if name in own and not (least <= value <= most and not (whole and value % 1)):
      what = "a whole number from" if whole else ""
      raise UserError(f"{name}={value:g}: want {what} {least:g} to {most:g}".replace("  ", " "))
  return dict(own) | {k: float(v) for k, v in knobs.items() if k in own}
