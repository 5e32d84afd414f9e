"""The same features, the reference evaluators' numbers.

Features come from seeds; the numbers from torch-fidelity 0.4.0, pytorch-fid
0.3.0 and prdc 0.2 on them. And protocols, and names of numbers.
"""

import dataclasses

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.evaluation.collect import Collected
from jaxgen.evaluation.protocols import PROTOCOLS, RESIZES, protocol
from jaxgen.evaluation.scores import METRICS, Comparison, full_name, score
from jaxgen.metrics.distances import moments
from jaxgen.metrics.kid import kid

N, M = 300, 250
TAPS = ("64", "192", "768", "pool3", "spatial", "logits", "logits_unbiased")
WIDTH = {"64": 64, "192": 192, "768": 768, "pool3": 2048, "spatial": 2023}


def features(n, d, seed, shift):
  """Float32 [n, d], not negative, of mean 0.3: a little like Inception's."""
  rng = np.random.RandomState(seed)  # whose streams never change
  common = rng.standard_normal((n, 8))[:, np.arange(d) % 8]
  x = 0.25 + shift * (np.arange(d) % 3) + 0.2 * rng.standard_normal((n, d))
  return np.maximum(x + 0.3 * common, 0).astype(np.float32)


def logits(n, seed):
  rng = np.random.RandomState(seed)
  x = rng.standard_normal((n, 1008))
  x[np.arange(n), rng.randint(0, 40, n)] += 6
  return x.astype(np.float32)


def compared(protocol, *taps):
  """What the evaluators saw, as far as some taps go."""
  rows = [{}, {}]
  for tap in taps:
    if tap.startswith("logits"):
      rows[0][tap] = logits(N, 7)
    else:
      d = WIDTH[tap]
      rows[0][tap] = features(N, d, d, 0.0)
      rows[1][tap] = features(M, d, d + 1, 0.03)
  own, real = (
    Collected(
      len(r), {k: moments(v) for k, v in r.items() if not k.startswith("logits")}, r, np.zeros(3)
    )
    for r in rows
  )
  return Comparison(own, real, TAPS, PROTOCOLS[protocol])


@pytest.mark.parametrize(
  ("metric", "tap", "want"),
  [
    ("fid64", "64", 0.40586932354383265),
    ("fid192", "192", 2.63551377861835),
    ("fid768", "768", 25.77966000336319),
    ("fid", "pool3", 89.17412501287038),
    ("sfid", "spatial", 86.2481399161851),
  ],
)
def test_frechet_distances(metric, tap, want):
  values, _ = score(compared("torch-fidelity", tap), (metric,), "inception")
  assert values[f"{metric}@torch-fidelity"][0] == pytest.approx(want, rel=2e-5)


def test_frechet_distances_of_pytorch_fid():
  values, _ = score(compared("pytorch-fid", "64", "192"), ("fid64", "fid192"), "inception")
  assert values["fid64@pytorch-fid"][0] == pytest.approx(0.40586932354383265, rel=2e-5)
  assert values["fid192@pytorch-fid"][0] == pytest.approx(2.635513778618318, rel=2e-5)


def test_inception_scores():
  x = compared("torch-fidelity", "logits_unbiased")
  mean, std = score(x, ("is",), "inception")[0]["is@torch-fidelity"]
  assert mean == pytest.approx(2.7831662197471956, rel=1e-4)
  assert std == pytest.approx(0.18320267270384757, rel=1e-3)
  x = compared("adm", "logits_unbiased")  # fewer than 5000: one split, in order
  mean, _ = score(x, ("is",), "inception")[0]["is@adm"]
  assert mean == pytest.approx(3.240179576155771, rel=1e-4)
  x = compared("edm", "logits_unbiased")
  x.protocol = dataclasses.replace(x.protocol, splits=3)
  mean, std = score(x, ("is",), "inception")[0]["is@edm"]
  assert mean == pytest.approx(3.0940415434051243, rel=1e-4)
  assert std == pytest.approx(0.02886850166841846, rel=1e-3)


@pytest.mark.parametrize(
  ("d", "mean", "std"),
  [
    (64, 0.003426547050476074, 0.002757408393313501),
    (2048, 0.007931547164916992, 0.0037590924892814542),
  ],
)
def test_kernel_distances(d, mean, std):
  got = kid(features(N, d, d, 0.0), features(M, d, d + 1, 0.03), 50, 100)
  np.testing.assert_allclose(got, (mean, std), atol=2e-6)


@pytest.mark.parametrize(
  ("tap", "d", "precision", "recall", "density", "coverage"),
  [("64", 64, 275, 209, 1.08, 0.984), ("pool3", 2048, 287, 203, 1.11, 0.972)],
)
def test_precision_recall_density_and_coverage(tap, d, precision, recall, density, coverage):
  x = compared("torch-fidelity", tap)
  x.taps = (tap,)
  values, _ = score(x, ("pr", "dc"), "inception")
  p, r, rho, c = (
    values[f"{k}@torch-fidelity"][0] for k in ("precision", "recall", "density", "coverage")
  )
  # Counts: which way round they are is told by N and M, too.
  assert p * N == pytest.approx(precision, abs=1.01)
  assert r * M == pytest.approx(recall, abs=1.01)
  assert rho == pytest.approx(density, abs=1.01 / (5 * N))
  assert c == pytest.approx(coverage, abs=1.01 / M)


def test_float16_is_near_the_exact_answer():
  x = compared("adm", "pool3")
  values, _ = score(x, ("pr", "pr_fp16"), "inception")
  assert values["precision_fp16@adm"][0] >= values["precision@adm"][0] - 0.02
  assert values["recall_fp16@adm"][0] >= values["recall@adm"][0] - 0.02


def test_protocols_are_what_they_are_named_after():
  # From the evaluators' own code; see the comments beside them.
  rules = {
    n: (p.resize, p.floats, p.splits or p.split_size, p.shuffle) for n, p in PROTOCOLS.items()
  }
  assert rules == {
    "adm": ("tf", "truncate", 5000, None),
    "pytorch-fid": ("half_pixel", "round", 10, None),
    "torch-fidelity": ("tf", "truncate", 10, 2020),
    "clean-fid": ("clean", "round", 10, None),
    "edm": ("tf", "round", 10, None),
  }
  for p in PROTOCOLS.values():
    assert p.resize in RESIZES and set(p.metrics) <= set(METRICS)
    assert (p.k, p.k_ball, p.images, p.kid_size) == (3, 5, 50_000, 1000)
  with pytest.raises(dataclasses.FrozenInstanceError):
    PROTOCOLS["adm"].k = 5
  with pytest.raises(UserError, match="did you mean 'clean-fid'"):
    protocol("cleanfid")


def test_names_carry_features_that_are_not_inceptions():
  p = PROTOCOLS["adm"]
  assert full_name("fid", "inception", p) == "fid@adm"
  assert full_name("fid", "inception-1a2b", p) == "frechet@inception-1a2b"
  assert full_name("sfid", "dinov2", p) == "sfrechet@dinov2"
  assert full_name("recall", "dinov2", p) == "recall@dinov2"
