"""What is done so far of evaluations and samples, kept in a bucket."""

import looks
import numpy as np
import pytest

import jaxgen
from jaxgen import config, files, train
from jaxgen.evaluation import collect as module
from jaxgen.evaluation.collect import Plan, collect, forget
from jaxgen.sampling import resumable

PLAN = Plan(("pool3",), ("pool3", "logits"))


class Killed(Exception):
  pass


class Fragile(looks.Stub):
  """Dies after some images."""

  most = 20

  def features(self, images, taps):
    if self.count >= self.most:
      raise Killed
    return super().features(images, taps)


class Memory:
  """Images in memory."""

  labels, warnings, card, class_names = None, [], {"name": "memory"}, ()

  def __init__(self, x):
    self.x, self.count = x, len(x)

  def read(self, start, stop):
    yield self.x[start:stop]


def test_features_go_on_in_a_bucket(bucket, monkeypatch):
  monkeypatch.setattr(module, "CHUNK", 16)
  monkeypatch.setattr(module, "SAVE_SECONDS", 0)
  images, folder = Memory(looks.pictures(64)), files.path(f"{bucket.folder}/x.partial/samples")
  expected = collect(images, looks.Stub(), PLAN)
  with pytest.raises(Killed):
    collect(images, Fragile(), PLAN, key="k", folder=folder)
  looking = looks.Stub()
  result = collect(images, looking, PLAN, key="k", folder=folder)
  assert looking.count < 64
  np.testing.assert_array_equal(result.moments["pool3"].sigma, expected.moments["pool3"].sigma)
  for tap in PLAN.rows:
    np.testing.assert_array_equal(result.rows[tap], expected.rows[tap])
  forget(folder)
  assert not files.sizes(bucket.folder)


def test_samples_go_on_in_a_bucket(bucket, monkeypatch, tmp_path):
  c = config.load("configs/points_vae.py:debug")
  c.steps, c.log.pictures, c.model.net.width = 2, 0, 16
  train.train(c, str(tmp_path), quiet=True)
  model, out, keep = jaxgen.load(str(tmp_path)), f"{bucket.folder}/x.npz", resumable._keep
  calls = []

  def fragile(*args):
    if len(calls) == 2:
      raise Killed
    calls.append(args)
    keep(*args)

  options = dict(batch=4, knobs={}, out=out)
  monkeypatch.setattr(resumable, "_keep", fragile)
  with pytest.raises(Killed):
    resumable.draw(model, 3, 14, None, **options)
  monkeypatch.setattr(resumable, "_keep", lambda *args: calls.append(args) or keep(*args))
  x = resumable.draw(model, 3, 14, None, **options)
  np.testing.assert_array_equal(x, model.sample(3, 14, batch=4))
  batch = -(-4 // model.mesh.size) * model.mesh.size
  assert len(calls) == -(-14 // batch)  # none was drawn twice
  resumable.forget(out)
  assert not files.sizes(bucket.folder)
