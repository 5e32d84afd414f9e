"""Copies of training images among results: counted, shown, and said in words."""

import dataclasses
import json

import numpy as np
import pytest
from pixel_judge import pixel_judge

from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.judge import open_judge
from jaxgen.metrics.wilson import rate_interval
from jaxgen.tasks import memorisation


@pytest.fixture(scope="module")
def copies():
  return memorisation.Copies(pixel_judge())


def test_copies_are_counted_beside_new_images(copies):
  real, test = (open_source("digits", part).arrays()[0] for part in ("train", "test"))
  noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
  near = real[[900]] ^ 1  # a grey level from a training image
  x = np.concatenate([noise, real[[5, 77]], near])
  check = copies(x, noise)
  assert (check.copies, check.count, check.before) == (3, 23, 0.0)
  assert set(check.results[:3]) == {20, 21, 22} and set(check.images[:3]) == {5, 77, 900}
  assert check.results[2] == 22 and list(check.ratio) == sorted(check.ratio)
  assert check.ratio[1] == 0 and check.ratio[2] <= 1 < check.ratio[3]
  np.testing.assert_array_equal(check.pairs[0], x[check.results])
  np.testing.assert_array_equal(check.pairs[1], real[check.images])
  # Against all distances: a noisy image's nearest one, whatever it is.
  apart = ((x[check.results[4]] - real.astype(float)) ** 2).sum((1, 2, 3))
  assert check.images[4] == apart.argmin()
  card = check.card
  assert card["share"] == 3 / 23 and card["interval"] == rate_interval(3, 23)
  assert card["nearest"][2]["training_image"] == 900 and card["share_before"] == 0
  json.dumps(card)
  assert check.line().startswith("copies: 3 of 23 results (4.5% to 32.1%) are as near to training")
  held = copies(test)  # by the rule's own level
  assert held.share == held.floor <= 0.05 and held.before is None


def test_many_results_are_looked_at_at_even_distances(copies):
  look = memorisation.Copies(dataclasses.replace(copies.judge, most=4))
  real = open_source("digits").arrays()[0]
  noise = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 1), np.uint8)
  x = noise.copy()
  x[[2, 3]] = real[[10, 11]]  # of 0, 2, 4 and 6 one
  check = look(x)
  assert (check.copies, check.count) == (1, 4)
  assert (check.results[0], check.images[0]) == (2, 10)


def test_whose_training_images(tmp_path, monkeypatch):
  assert memorisation.open_copies(None, "W") is None
  seen = []
  judge = lambda data, folder: seen.append(data) or pixel_judge()
  monkeypatch.setattr(memorisation, "open_judge", judge)
  own = dict(source="digits:first=5", split="train", size=0, holdout=0.0, fraction=0.5)
  monkeypatch.setattr(memorisation, "data_of", lambda workdir: own)
  meta = {"data": {"shape": [8, 8, 1]}}
  monkeypatch.setattr(memorisation.meta, "latest", lambda workdir: meta)
  memorisation.open_copies("own", "W")
  memorisation.open_copies("folder:x", "W")
  assert seen[0].to_dict() == own
  assert seen[1].to_dict() == dict(
    source="folder:x", split="train", size=8, channels=1, holdout=0.2, fraction=1.0
  )
  monkeypatch.setattr(memorisation, "open_judge", open_judge)
  with pytest.raises(UserError, match="there are no images in"):
    memorisation.open_copies(f"folder:{tmp_path}", "W")
