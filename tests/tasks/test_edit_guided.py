"""A classifier pushes edits towards a label: to the right place, and not at all by scale 0."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from editing import SHAPE, game, images, loaded, sampler

from jaxgen.diffusion import degrade, precond, process, samplers, times
from jaxgen.errors import UserError
from jaxgen.models.classifier import Classifier
from jaxgen.models.diffusion import Diffusion
from jaxgen.models.guided import Guided
from jaxgen.monitor import pictures
from jaxgen.tasks import edit
from jaxgen.tasks.editor import Editor, operator_of

KEEP = degrade.centre(8, 8)
M, S = 0.6, 0.1  # pixels of class 0 are N(-M, S^2), of class 1 N(M, S^2)
EXACT = dict(
  process=process.EDM(), precond=precond.x0, draw_t=times.lognormal
)  # c_noise is 1000 sigma - 1


def of_mixture(x, c_noise):
  """log p(y | x_t) but for a constant, [B, 2], and E[x_0 | x_t, y], of one pixel."""
  x, sigma = x.reshape(-1, 1), (c_noise[:, None] + 1) / 1000
  means, var = jnp.array([-M, M]), S**2 + sigma**2
  return -((x - means) ** 2) / (2 * var), means + S**2 / var * (x - means)


class Truth(nn.Module):
  """The best denoiser of the mixture."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    w = self.param("w", nn.initializers.ones, ())
    logits, x_0 = of_mixture(x, c_noise)
    return w * jnp.sum(jax.nn.softmax(logits) * x_0, -1).reshape(x.shape)


class Bayes(nn.Module):
  """p(y | x_t), exactly."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    w = self.param("w", nn.initializers.ones, ())
    return w * of_mixture(x, c_noise)[0]


class Eye(nn.Module):
  """A classifier of one convolution that looks at the noise, too."""

  @nn.compact
  def __call__(self, x, c_noise, key=None):
    h = jnp.tanh(nn.Conv(8, (3, 3))(x) + 0.1 * c_noise[:, None, None, None])
    return nn.Dense(4)(h.reshape(len(x), -1))


@pytest.mark.parametrize("how", ("sdedit", "ddim"))
def test_a_true_classifier_edits_into_its_class(how):
  """Of a mixture whose score and classes are known, edits are draws of the class."""
  path = functools.partial(times.karras, lo=0.01, hi=20.0)
  diffusion = Diffusion(Truth(), **EXACT, path=path, sampler=samplers.euler, steps=80)
  model = Guided(diffusion, Classifier(Bayes(), **EXACT))
  rng, n = np.random.default_rng(0), 2000
  x = M * (2 * (np.arange(n) % 2) - 1) + S * rng.normal(size=n)
  x = np.uint8(np.round((x + 1) * 127.5)).reshape(n, 1, 1, 1)
  y = np.arange(n) // 2 % 2  # of either class, into either
  knobs = {"strength": 1.0} if how == "sdedit" else {}
  made = Editor(loaded(model, 2, (1, 1, 1)), how)(x, labels=y, scale=1.0, batch=n, **knobs)
  values = made.reshape(n) / 127.5 - 1
  for label, mean in ((0, -M), (1, M)):
    assert abs(values[y == label].mean() - mean) < 0.02
    assert abs(values[y == label].std() - S) < 0.02


@functools.cache
def guided():
  """A model without labels, and a classifier of four, both with random weights."""
  plain = game()
  parts = dict(process=plain.process, precond=plain.precond, draw_t=plain.draw_t)
  return loaded(Guided(plain, Classifier(Eye(), **parts)), 4)


def log_p(x, y):
  """The classifier's log p(y | x) of images, [N]."""
  model, state = guided().model.guide, guided().state
  state = state.replace(params={"net": state.params["guide"]}, stats={})
  logits = model.logits(state, {"x": jnp.asarray(x, jnp.float32) / 127.5 - 1})
  return np.asarray(jax.nn.log_softmax(logits))[np.arange(len(x)), y]


@pytest.mark.parametrize(
  "how, text",
  [
    ("sdedit", None),
    ("ddim", None),
    pytest.param("repaint", "mask", marks=pytest.mark.slow),
    ("pigdm", "mask"),
  ],
)
def test_the_scale_pushes_towards_the_label(how, text):
  operator = operator_of(text, SHAPE) if text else None
  x, y = images(8), np.arange(8) % 4
  e = Editor(guided(), how, operator)
  knobs = {"jump_length": 1, "jump_n_sample": 1} if how == "repaint" else {}
  edit = lambda labels=y, **kw: e(x, keep=KEEP, labels=labels, **knobs, **kw)
  plain = guided().state
  plain = plain.replace(params={"net": plain.params["net"]})
  free = Editor(dataclasses.replace(sampler(), state=plain), how, operator)(x, keep=KEEP, **knobs)
  still, pushed = edit(scale=0.0), edit(scale=5.0)
  np.testing.assert_allclose(still.astype(int), free.astype(int), atol=1)
  assert log_p(pushed, y).mean() > log_p(still, y).mean() + 0.1
  other = (y + 1) % 4
  assert log_p(edit(other, scale=5.0), other).mean() > log_p(pushed, other).mean() + 0.1
  np.testing.assert_array_equal(edit(np.full(8, -1), scale=5.0), still)  # pushed nowhere
  assert e.program._cache_size() == 1
  # As many evaluations again where it pushes, which is not on the way to noise.
  costs, encoding = [e.cost(knobs | {"scale": s}) for s in (0.0, 1.0)], 4 if how == "ddim" else 0
  assert costs[1] == 2 * costs[0] - encoding


def test_what_a_classifier_is_not_for():
  with pytest.raises(UserError, match="pushes towards a label: give --labels"):
    Editor(guided(), "sdedit")(images(), scale=1.0)
  with pytest.raises(UserError, match="is between two models: leave --classifier"):
    Editor(guided(), "bridge", None, sampler())
  with pytest.raises(UserError, match="was trained without labels: leave it"):
    Editor(guided(), "ddim")(images(), labels=1, source=2)


def test_the_verb_hands_the_classifier_on(verb, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  PIL.Image.fromarray(images(1)[0]).save("a.png")
  asked, card = [], {"workdir": "W", "classifier": {"workdir": "C", "step": 3}}
  load = lambda w, **kw: asked.append(kw) or dataclasses.replace(guided(), card=card)
  monkeypatch.setattr(edit, "editor_of", functools.partial(edit.editor_of, load_model=load))
  words = [
    "edit",
    "--workdir=W",
    "--image=a.png",
    "--how=sdedit",
    "--classifier=C",
    "--guide_step=3",
  ]
  status, _, err = verb(*words, "--labels=1", "--scale=2.5", "--out=new")
  assert status == 0, err
  assert (asked[0]["classifier"], asked[0]["guide_step"]) == ("C", 3)
  info = pictures.read_info(tmp_path / "new" / "a.png")
  assert info["knobs"]["scale"] == 2.5 and info["classifier"] == card["classifier"]
  assert "C, step 3, by scale 2.5" in (tmp_path / "new.html").read_text()
  status, _, err = verb(*words, "--out=other")
  assert status == 2 and "give --labels, or leave --classifier" in err[-1]
  assert not (tmp_path / "other").exists()
