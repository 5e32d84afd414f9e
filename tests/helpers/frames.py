"""Which of our frames lie between `Sampler.sample` and the net, by a trace.

  python tests/helpers/frames.py [configs/x.py:arg]

Prints file and function of every frame that is on the stack when the net is
first called, outermost first, as the sampling program is traced.
"""

import pathlib
import sys
from types import FrameType

import jax
import numpy as np
from games import filled

import jaxgen
from jaxgen import config, core
from jaxgen.sampling.presets import with_sampler
from jaxgen.sampling.sampler import Sampler
from jaxgen.sampling.trained import sampling_state

ROOT = pathlib.Path(jaxgen.__file__).parent


def sampler_of(name: str, sampler: str = "ddim") -> Sampler:
  """A config's model of 8x8 digits, with weights that nobody trained."""
  c = config.load(name)
  model, classes = config.build(with_sampler(c.model, sampler)), c.data.classes
  batch = {"x": np.zeros((1, 8, 8, 1), np.float32), "y": np.zeros(1, np.int32)}
  params, stats = jax.eval_shape(model.init, batch, jax.random.key(0))
  state = filled(core.State(0, params, stats, {}, {}, None))
  state = sampling_state(0, state.params, state.stats)
  return Sampler(model, state, (8, 8, 1), np.dtype("uint8"), classes, {})


def frames_to_net(sampler: Sampler) -> list[str]:
  """file:function of our frames from `sample` to the net, both included."""
  net = type(sampler.model.net).__call__
  net = getattr(net, "__wrapped__", net).__code__
  path: list[str] = []

  def profile(frame: FrameType, event: str, _) -> None:
    if event != "call" or path or frame.f_code is not net:
      return
    while frame:
      file = pathlib.Path(frame.f_code.co_filename)
      if file.is_relative_to(ROOT):
        path.insert(0, f"{file.relative_to(ROOT)}:{frame.f_code.co_qualname}")
      frame = frame.f_back

  sys.setprofile(profile)
  try:
    sampler.sample(0, 2, batch=2, steps=2)
  finally:
    sys.setprofile(None)
  return path


if __name__ == "__main__":
  name = sys.argv[1] if len(sys.argv) > 1 else "configs/digits_diffusion.py:debug"
  path = frames_to_net(sampler_of(name))
  print("\n".join(path), f"{len(path)} frames", sep="\n")
