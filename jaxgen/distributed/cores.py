"""On CPUs the cores are devices: a batch is cut over them as over the chips of a pod.

One device that has all cores gives many of them nothing to do: XLA computes
convolutions to few channels on one, and small products, too. With two cores as
two devices most train steps took 0.5 to 0.8 of the time, see nets/README.md.
"""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence

import jax

from jaxgen.distributed.join import joined
from jaxgen.errors import UserError

SWITCH = "JAXGEN_CPU_DEVICES"
MOST = 8  # every device keeps all of the state
LEAST = 8  # examples of each: of fewer, products are small and weights all there is


def share(batches: Sequence[int], env: Mapping[str, str] = os.environ) -> None:
  """Makes as many devices of this machine's CPU as all batches keep busy; at most MOST.

  Nothing happens where somebody else decides: with XLA's own flag, as one of
  several processes, or where jax has its devices already. Where there is an
  accelerator, that is used as ever.

  Raises:
    UserError: JAXGEN_CPU_DEVICES is no count of devices.
  """
  if "device_count" in env.get("XLA_FLAGS", "") or joined():
    return
  n = count(batches, env.get(SWITCH, ""))
  with contextlib.suppress(RuntimeError):  # of a jax that has its devices
    jax.config.update("jax_num_cpu_devices", n)


def count(batches: Sequence[int], wanted: str = "") -> int:
  """Devices for batches of these sizes: as many as are wanted, or as fit the cores.

  A power of two, for so are most batches, those of judges, too.

  Raises:
    UserError: What is wanted is no whole number of 1 and more.
  """
  if wanted:
    if not wanted.isdigit() or int(wanted) < 1:
      raise UserError(f"{SWITCH}={wanted}: want a number of devices, 1 and more")
    return int(wanted)
  n = max(min(cores(), MOST, *(batch // LEAST for batch in batches)), 1)
  return math.gcd(1 << (n.bit_length() - 1), *batches)


def cores() -> int:
  """Those that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
