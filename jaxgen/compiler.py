"""How hard XLA's compiler tries, by platform and by how often a program runs."""

import jax
from jax.sharding import AbstractMesh, Mesh


def options(mesh: Mesh | AbstractMesh, once: bool = False) -> dict[str, int]:
  """What to ask of it for a program on a mesh; `once`: it runs no second time.

  On CPUs, where steps spend their time in libraries' convolutions and products,
  LLVM's first level gives steps as fast as its third, which is the default. What
  runs once is not optimised at all: that triples the time that compiling takes.
  """
  if isinstance(mesh, AbstractMesh) or mesh.devices.flat[0].platform != "cpu":
    return {}
  if jax.config.values["jax_disable_most_optimizations"]:  # as in the tests
    return {}
  return {"xla_backend_optimization_level": 0 if once else 1}
