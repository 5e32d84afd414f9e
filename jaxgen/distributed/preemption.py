"""Asked to stop: by SIGTERM, or by a machine that is going to be taken away."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator

from jax.experimental import multihost_utils

from jaxgen.distributed import join

STOPPED = 143  # exit status: saved before the end; by custom 128 + SIGTERM

# Jax answers yes at one number, which is one more than the largest so far when
# the notice came: 1 if that was early. So none may ever be left out.
_asked = itertools.count(1)
_heard: list[list[bool]] = []  # of all who listen now, the outermost first


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
  """Within, SIGTERM asks for an end: `stopped()` says whether it came.

  One may stand within another, and all hear of it.

  Of several processes any may be asked, also by a notice that its TPU is going
  to be taken away; after the same step all hear of it, if all ask after every
  step. The signal is jax's then, and we leave it alone.
  """
  if join.joined():
    yield lambda: multihost_utils.reached_preemption_sync_point(next(_asked))
    return
  heard = []
  try:
    before = signal.signal(signal.SIGTERM, lambda *_: [h.append(True) for h in _heard])
  except ValueError:  # not the main thread: somebody else listens
    yield lambda: False
    return
  _heard.append(heard)
  try:
    yield lambda: bool(heard)
  finally:
    _heard.pop()  # by place: lists that have heard alike are equal
    signal.signal(signal.SIGTERM, before)
