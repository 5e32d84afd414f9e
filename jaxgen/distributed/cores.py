"""On CPUs the cores are devices: a batch is cut over them as over the chips of a pod.

One device that has all cores gives many of them nothing to do: XLA computes
convolutions to few channels on one, and small products, too. With two cores as
two devices train steps of four nets took 0.56 to 0.93 of the time, and those of a
fifth, of wide layers, 0.97 to 1.15; samples 0.63, and features 0.79. Nets of points
are too small: 1.5 to 2.4. See nets/README.md.
"""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence

import jax

from jaxgen.distributed.join import joined, number
from jaxgen.errors import UserError

SWITCH = "JAXGEN_CPU_DEVICES"
MOST = 8  # every device keeps all of the state
LARGEST = 1024  # devices of one CPU, whoever asks
LEAST = 8  # examples of each: of fewer, products are small and weights all there is
COPIES = 2**30  # bytes of the weights that all devices keep


def make_devices(
  batches: Sequence[int], weights: int = 0, env: Mapping[str, str] = os.environ
) -> None:
  """Makes as many devices of this machine's CPU as all batches keep busy; at most MOST.

  Or as many as JAXGEN_CPU_DEVICES says. Nothing happens where somebody else decides:
  with XLA's own flag, as one of several processes, or where jax has its devices
  already. Where there is an accelerator, that is used as ever.

  Args:
    batches: Examples of each step, or drawn at once.
    weights: Bytes of what every device keeps, where they may be a large model's.
    env: The environment.

  Raises:
    UserError: JAXGEN_CPU_DEVICES is no count of devices.
  """
  if "device_count" in env.get("XLA_FLAGS", "") or joined():
    return
  with contextlib.suppress(RuntimeError):  # of a jax that has its devices
    jax.config.update("jax_num_cpu_devices", wanted(env) or count(batches, weights))


def wanted(env: Mapping[str, str]) -> int | None:
  """What the switch says, if anything; UserError unless it is 1 to LARGEST."""
  n = number(env, SWITCH)
  if n is not None and not 1 <= n <= LARGEST:
    raise UserError(f"{SWITCH}={n}: want a number of devices from 1 to {LARGEST}")
  return n


def count(batches: Sequence[int], weights: int = 0) -> int:
  """Devices for batches of these sizes: a power of two, for so are most batches."""
  n = min(cores(), MOST, COPIES // max(weights, 1), *(batch // LEAST for batch in batches))
  n = max(n, 1)
  return math.gcd(1 << (n.bit_length() - 1), *batches)


def cores() -> int:
  """Those that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
