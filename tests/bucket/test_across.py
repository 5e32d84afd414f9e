"""Models and samples in buckets of both kinds: the same scores as of those here."""

import json
import re

import numpy as np
import pytest

from jaxgen import config, files, train


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """Workdirs here of a VAE and a GAN of points, hardly trained."""
  home = tmp_path_factory.mktemp("models")
  for name in ("points_vae", "points_gan"):
    c = config.load(f"configs/{name}.py:debug")
    c.steps, c.checkpoint.every, c.log.pictures = 2, 2, 0
    train.train(c, str(home / name), quiet=True)
  return home


def upload(folder, address):
  for name in files.shown_below(folder):
    files.write_bytes(files.join(address, name), (folder / name).read_bytes())


def timeless(value):
  """Of a report, without what it took."""
  drop = (
    "created",
    "seconds",
    "second",
    "memory",
    "bytes",
    "time",
    "command",
    "workdir",
    "curves",
    "goodput",
  )
  if isinstance(value, dict):
    return {k: timeless(v) for k, v in value.items() if not any(d in k for d in drop)}
  return [timeless(v) for v in value] if isinstance(value, list) else value


def test_comparing_across_buckets_gives_the_scores_of_here(models, servers, verb, tmp_path):
  here, there, reports = sorted(models.iterdir()), [], []
  for folder, kind in zip(here, ("gs", "s3"), strict=True):
    there.append(f"{servers(kind).address}/across/{folder.name}")
    upload(folder, there[-1])
  for i, workdirs in enumerate((here, there)):
    out, words = tmp_path / str(i), ",".join(map(str, workdirs))
    status, _, lines = verb("compare", f"--workdirs={words}", f"--out={out}", "--num=100")
    assert status == 0, lines
    reports.append(timeless(json.loads((out / "report.json").read_text())))
  assert [row["name"] for row in reports[0]["rows"]] == ["points_gan", "points_vae"]
  assert all(row["metrics"]["kl"] > 0 for row in reports[0]["rows"])
  assert reports[0] == reports[1]


def test_a_card_of_samples_across_buckets_is_that_of_here(servers, verb, tmp_path):
  """Byte by byte, but for where the samples lie and when it was written."""
  rng, cards = np.random.default_rng(0), []
  places = {"a.npz": f"{servers('s3').address}/across", "b.npz": f"{servers('gs').address}/across"}
  for name, place in places.items():
    x = rng.normal(size=(100, 4))
    np.savez(tmp_path / name, mu=x.mean(0), sigma=np.cov(x.T))
    files.write_bytes(f"{place}/{name}", (tmp_path / name).read_bytes())
  for home in (dict.fromkeys(places, str(tmp_path)), places):
    own, ref = (f"{home[name]}/{name}" for name in places)
    out = f"{home['a.npz']}/card.json"
    status, said, lines = verb(
      "eval", f"--samples={own}", f"--ref={ref}", "--protocol=edm", f"--out={out}"
    )
    assert status == 0, lines
    card = files.path(out).read_text().replace(own, "A").replace(ref, "B")
    cards.append(re.sub(r"\d{4}-\d\d-\d\dT[\d:+.]+", "T", card))
  assert json.loads(cards[0]) and "fid" in cards[0]
  assert cards[0] == cards[1]
