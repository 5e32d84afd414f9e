"""Several processes that are one training."""
import os

import pod
import pytest

from jaxgen import processes
from jaxgen.errors import UserError

SUM = """
import numpy as np
mesh = jax.make_mesh((jax.device_count(),), ("d",))
where = jax.sharding.NamedSharding(mesh, jax.P("d"))
mine = np.arange(2.) + 2 * jax.process_index()
x = jax.make_array_from_process_local_data(where, mine)
total = float(x.sum())
print(jax.process_index(), jax.process_count(), jax.device_count(), total)
"""


def test_a_pod_is_one_program():
  for i, done in enumerate(pod.run(2, 2, SUM)):
    assert done.status == 0 and done.stdout == f"{i} 2 4 6.0\n", done


def test_a_pod_leaves_nothing_behind():
  with pod.started(2, 1, "import time; print(1, flush=True); time.sleep(99)",
                   ) as them:
    assert [done.status for done in pod.finish(them, 0.1)] == [None, None]
  for process in them:
    with pytest.raises(ProcessLookupError):
      os.kill(process.pid, 0)


def test_alone_nothing_happens():
  code = "print(jax.distributed.is_initialized(), jax.process_count())"
  (done,) = pod.run(1, 1, code)
  assert (done.status, done.stdout) == (0, "False 1\n"), done


def test_half_a_place_is_a_mistake():
  with pytest.raises(UserError, match="JAXGEN_PROCESSES without the rest"):
    processes.found({"JAXGEN_PROCESSES": "2"})
