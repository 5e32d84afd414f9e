"""RePaint gives its authors' own schedule and run, and needs its jumps."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN, near

from jaxgen.diffusion import guidance, precond, repaint, times
from jaxgen.diffusion.denoiser import Estimate
from jaxgen.diffusion.process import VP, Linear
from jaxgen.diffusion.repaint import Jumps


@pytest.fixture(scope="module")
def golden():
  return np.load(GOLDEN / "repaint.npz")


def test_schedules_are_the_published_ones(golden):
  arguments = json.loads(str(golden["manifest"]))["arguments"]
  paper, small = Jumps(10, 10), Jumps(arguments["jump_length"], arguments["jump_n_sample"])
  np.testing.assert_array_equal(repaint.schedule(250, paper), golden["schedule_paper"])
  np.testing.assert_array_equal(repaint.schedule(arguments["t_T"], small), golden["schedule_small"])
  assert len(golden["schedule_paper"]) == repaint.count(250, paper) + 1 == 4571
  assert repaint.nfe(250, paper) == 2410


def by_counting(n, length, times_):
  """The schedule by the rule itself: go back where jumps are left."""
  left = dict.fromkeys(range(0, n - length, length), times_ - 1)
  point, walk = n - 1, [n - 1]
  while point >= 0:
    if left.get(point, 0):
      left[point] -= 1
      walk += range(point + 1, point + length + 1)
      point += length
    point -= 1
    walk.append(point)
  return walk


def test_places_in_closed_form_are_those_of_the_rule():
  place = jax.jit(lambda n, *jumps: repaint.place(jnp.arange(300), n, Jumps(*jumps)))
  for n in (1, 2, 5, 12, 31):
    for length in (1, 2, 3, 10, 40):
      for times_ in (1, 2, 4):
        jumps, want = Jumps(length, times_), by_counting(n, length, times_)
        assert place(n, *jumps)[: len(want)].tolist() == want
        assert repaint.nfe(n, jumps) == sum(b < a for a, b in zip(want, want[1:], strict=False))


def test_a_whole_run_is_the_authors(golden):
  """Twelve respaced steps with jumps, a learned variance, every draw as it was."""
  process, n, jumps = Linear(), 12, Jumps(3, 3)
  path = process(times.spaced(process, jnp.arange(20), n))
  walk, (W, draws) = golden["schedule_small"], (jnp.asarray(golden[k]) for k in ("W", "draws"))
  forth = np.diff(walk) < 0
  taken = np.where(forth & (np.arange(len(forth)) > 0), 2, 1)
  first = jnp.asarray(np.cumsum(taken) - taken)  # of each step's draws
  assert len(draws) == taken.sum()

  def denoise(x, t):
    c_skip, c_out, _, step = precond.eps(t)
    F = jnp.einsum("oc,bchw->bohw", W, x) + 0.1 * jnp.sin(step / 300)
    eps, v = jnp.split(F, 2, 1)
    return Estimate(c_skip * x + c_out * eps, (v + 1) / 2)

  run = jax.jit(
    lambda x_T, *lengths: repaint.repaint(
      guidance.clip(denoise),
      x_T,
      path,
      n,
      None,
      golden["gt"],
      golden["keep_mask"],
      *lengths,
      draw=lambda i, what: draws[first[i] + what],
    )
  )
  near(run(golden["init"], *jumps), golden["sample"], 2e-4)
  seen = precond.eps(path)[3][n - 1 - walk[:-1][forth]]
  np.testing.assert_array_equal(seen, golden["steps_seen"])
  # The lengths of jumps are arguments: others make another run, by the same program.
  assert not np.allclose(run(golden["init"], 4.0, 2.0), golden["sample"], atol=1e-2)
  assert run._cache_size() == 2  # of whole numbers, and of these


def test_jumps_bring_across_what_is_known():
  """Of two pixels of correlation 0.9 one is known: its posterior, and what is missed."""
  rho, std, y, n, b = 0.9, 0.5, 0.6, 50, 2000
  process = VP()
  path = process(times.karras(process, jnp.arange(n), n, lo=0.01, hi=10.0))

  def denoise(x, t):  # of the sum and of the difference, which do not depend on each other
    a, b = x[:, :1] + x[:, 1:], x[:, :1] - x[:, 1:]
    gain = lambda v: t.alpha * v / (t.alpha**2 * v + t.sigma**2) / 2
    a, b = gain(std**2 * (1 + rho)) * a, gain(std**2 * (1 - rho)) * b
    return jnp.concatenate([a + b, a - b], 1)

  @jax.jit
  def draw(jump_n_sample):
    key = jax.random.split(jax.random.key(0), b)
    x_T = path.sigma[0] * jax.random.normal(jax.random.key(1), (b, 2))
    known, keep = jnp.array([[y, 0.0]]), jnp.array([[1.0, 0.0]])
    return repaint.repaint(denoise, x_T, path, n, key, known, keep, 2, jump_n_sample, frac=1.0)

  once, often = (np.asarray(draw(r), float)[:, 1] for r in (1, 12))
  mean, std = rho * y, std * (1 - rho**2) ** 0.5
  assert abs(often.mean() - mean) < 0.1 * std  # a standard error is 0.022 std
  assert abs(often.std() / std - 1) < 0.06
  assert once.mean() - mean < -0.6 * std and once.std() > 1.25 * std
