"""Warnings of games: what is told, when, and in which words."""

import re

import numpy as np
import pytest

from jaxgen.monitor import health


def told(key, series):
  _, found = health.replay({"step": i, key: value} for i, value in enumerate(series))
  return found


@pytest.mark.parametrize(
  "key, well, ill, rows, name, words",
  [
    ("probe/rank", 0.6, 0.9, 2, "overfitting", "90% of pairs"),
    ("probe/class_diversity_min", 0.5, 0.1, 2, "class_collapse", "0.10 times"),
    ("gen/sigma_max", 3.0, 40.0, 3, "singular", "generator's.*40.0, 3.0 at"),
    ("disc/sigma_max", 3.0, 31.0, 3, "singular", "discriminator's.*31.0"),
    ("disc/p", 0.7, 0.85, 3, "leaking", "p = 0.85"),
    ("net/perplexity_top", 20.0, 1.5, 3, "codebook", "perplexity is 1.50"),
  ],
)
def test_rules(key, well, ill, rows, name, words):
  assert told(key, [well] * 30) == []
  # An odd row says nothing, a median of them does; and only once.
  assert told(key, [well] * 12 + [ill] + [well] * 8) == []
  found = told(key, [well] * 12 + [ill] * 20)
  assert [(f.step, f.name) for f in found] == [(11 + rows, name)]
  assert re.search(words, found[0].text) and "try" in found[0].text.lower()
  assert told(key, [np.nan] * 30) == []


def test_what_is_normal_is_what_was_early():
  # It explodes against its own beginning, not against a number of ours.
  assert told("gen/sigma_max", [500.0] * 40) == []
  rise = [1.0] * 10 + [2.0**i for i in range(12)]
  (found,) = told("gen/sigma_max", rise)
  # 16, 32 and 64 stand in the window's upper half from step 16 on.
  assert found.step == 16
