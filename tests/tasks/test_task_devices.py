"""Edits, controls and classifiers that augment: several devices make what one does."""

import sys

import numpy as np
import pytest
from editing import game, images, loaded
from games import on_four_devices
from ml_collections import ConfigDict

from jaxgen.adversarial import predictors
from jaxgen.data.sources import open_source
from jaxgen.evaluation.learned import judge_config
from jaxgen.sampling.attribute_sampling import Attribute, GuidedControl, Request
from jaxgen.tasks.classifier_trials import Trials
from jaxgen.tasks.editor import Editor

SHAPE = (8, 8, 1)


def record():
  """What one process makes on its devices, of numbers that they do not divide."""
  edit = Editor(loaded(game(10), 10, SHAPE), "ddim")
  arrays = {"edit": edit(images(6, shape=SHAPE), labels=[3, 7], source=1)}
  control = GuidedControl(
    edit.sampler, [Attribute("slant", predictors.slant)], units={"slant": 0.2}
  )
  wanted = {"slant": np.linspace(-0.5, 0.5, 7)[:, None]}
  request = Request(wanted, np.arange(7), np.arange(7) % 10, batch=3)
  arrays |= dict(zip(("before", "after"), control.make(request), strict=True))
  x, y = (open_source("digits", part) for part in ("train", "test"))
  settings = judge_config(ConfigDict(dict(source="digits", split="train", size=0)), x, 10)
  settings.update(steps=20, batch=30)
  trials = Trials(settings, 300, y.arrays())
  train = [a[:250] for a in x.arrays()]
  return arrays | {"right": trials(*train, seed=3)}


@pytest.mark.slow
def test_four_devices_make_what_one_does(tmp_path):
  four, one = on_four_devices(__file__, tmp_path), record()
  assert np.abs(one["after"].astype(int) - one["before"]).max() > 8
  for name in ("edit", "before", "after"):
    np.testing.assert_allclose(four[name].astype(int), one[name].astype(int), atol=1)
  # Twenty steps that are not the same to the last bit may take a few images otherwise.
  assert one["right"].mean() > 0.3 and np.mean(four["right"] == one["right"]) > 0.98


if __name__ == "__main__":
  np.savez(sys.argv[1], **record())
