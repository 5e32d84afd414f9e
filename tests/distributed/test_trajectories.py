"""Two processes train as one device does; `trajectories.py` tries more."""

import pytest
import trajectories

# Two nets, two moments each, gradients of gradients; and no convolutions, for
# these take long to compile.
NAME, STEPS = "configs/points_gan.py:debug", 6
WHOLE, CUT = dict(data=0, fsdp=1), dict(data=0, fsdp=4)
PARTS = """
from configs import points_gan


def get_config():
  c = points_gan.get_config("debug")
  c.accumulate = 2
  return c
"""


def test_two_processes_see_the_losses_of_one_device(tmp_path):
  """Even if they take each batch in parts."""
  parts = tmp_path / "parts.py"
  parts.write_text(PARTS)
  ((one,),) = trajectories.on(1, 1, [NAME], STEPS, [WHOLE]).values()
  ((two,),) = trajectories.on(2, 2, [str(parts)], STEPS, [CUT]).values()
  assert len(one) == STEPS
  assert trajectories.apart(two, one) < 1e-5
  # It notices: losses of other steps (the generator moves on every second) are
  # not these.
  assert trajectories.apart(one[2:], one[:-2]) > 1e-4


@pytest.mark.parametrize(
  "a, b, want",
  [
    ([{"x/loss": 1.0}], [{"x/loss": 1.0}], 0),
    ([{"x/loss": 101.0}], [{"x/loss": 100.0}], 0.01),  # of large ones, a share
    ([{"x/loss": 0.02}], [{"x/loss": 0.01}], 0.01),
  ],
)  # of small ones, as it is
def test_apart(a, b, want):
  assert trajectories.apart(a, b) == pytest.approx(want)
