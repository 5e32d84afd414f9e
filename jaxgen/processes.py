"""Many processes as one: joining them.

Started as one of several processes, a verb joins the others before it touches
a device; started alone, nothing happens. Who the others are is read from the
environment, see `found`.
"""
import os
from collections.abc import Mapping
from typing import NamedTuple

import jax

from jaxgen.errors import UserError

COORDINATOR, COUNT, INDEX = (
    "JAXGEN_COORDINATOR", "JAXGEN_PROCESSES", "JAXGEN_PROCESS_ID")
HEARTBEAT = "JAXGEN_HEARTBEAT_SECONDS"  # silent for so long: dead


class Place(NamedTuple):
  """Which of how many processes this is, and where they meet."""
  coordinator: str  # host:port, of process 0
  processes: int
  index: int


def found(env: Mapping[str, str]) -> Place | None:
  """This process's place among others; None if there are no others.

  Raises:
    UserError: the environment says half of what it takes.
  """
  said = {name: env[name] for name in (COORDINATOR, COUNT, INDEX)
          if env.get(name)}
  if not said:
    return None
  if len(said) < 3:
    raise UserError(f"{', '.join(said)} without the rest: set {COORDINATOR}="
                    f"host:port, {COUNT} and {INDEX} (from 0)")
  processes, index = int(said[COUNT]), int(said[INDEX])
  return Place(said[COORDINATOR], processes, index) if processes > 1 else None


def join() -> None:
  """Joins the other processes, if there are any; call before all of jax."""
  place = found(os.environ)
  if place is None:
    return
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(
      place.coordinator, place.processes, place.index,
      cluster_detection_method="deactivate",
      heartbeat_timeout_seconds=int(os.environ.get(HEARTBEAT, 30)))
