"""Cards: what they say, and which may stand side by side."""

import copy
import json

import pytest

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.evaluation import cards
from jaxgen.evaluation.protocols import PROTOCOLS


@pytest.fixture
def card():
  head = cards.head(
    PROTOCOLS["adm"],
    {"name": "inception", "sha256": "ab"},
    {"kind": "file", "name": "r.npz", "sha256": "cd", "images": 10},
    {
      "kind": "model",
      "name": "W",
      "images": 9,
      "seed": 0,
      "step": 5,
      "ema": "main",
      "knobs": {"steps": 25},
    },
  )
  return head | {
    "scores": {"fid@adm": 3.5, "is@adm": 9.0},
    "warnings": [],
    "spread": {"is@adm": 0.25},
  }


def changed(card, path, value):
  other = copy.deepcopy(card)
  *parents, last = path.split(".")
  node = other
  for parent in parents:
    node = node[parent]
  node[last] = value
  return other


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("protocol.name", "edm"),
    ("protocol.floats", "round"),
    ("protocol.kid_size", 50),
    ("features.sha256", "xy"),
    ("features.name", "dinov2"),
    ("reference.sha256", "ef"),
    ("reference.images", 11),
    ("samples.images", 8),
  ],
)
def test_unlike_cards_are_not_ranked_and_the_field_is_named(card, field, value):
  other = changed(card, field, value)
  with pytest.raises(UserError, match=f"a and b cannot be ranked: {field} is"):
    cards.rank({"a": card, "b": other})


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("samples.seed", 1),
    ("samples.step", 6),
    ("samples.knobs.steps", 50),
    ("samples.ema", "none"),
    ("device.kind", "TPU"),
    ("reference.name", "q.npz"),
    ("samples.name", "V"),
  ],
)
def test_what_is_compared_may_differ(card, field, value):
  cards.check_alike({"a": card, "b": changed(card, field, value)})


def test_the_manifold_matters_where_there_are_two(card):
  a, b, none = (changed(card, "reference.manifold", n) for n in (10, 20, 0))
  cards.check_alike({"a": a, "none": none, "card": card})
  with pytest.raises(UserError, match="reference.manifold is 10"):
    cards.check_alike({"a": a, "b": b})


def test_the_best_of_each_line_is_marked(card):
  other = changed(card, "scores", {"fid@adm": 3.25, "is@adm": 8.0})
  lines = cards.rank({"a": card, "b": other}).splitlines()
  assert lines[1].split() == ["fid@adm", "3.5", "3.25*"]
  assert lines[2].split() == ["is@adm", "9*", "8"]


def test_a_table_has_spreads(card):
  text = cards.table(card)
  assert "is@adm   9 ± 0.25" in text and "9 images against r.npz" in text


def test_cards_are_files(card, tmp_path):
  files.write_json(tmp_path / "deep" / "c.json", card)
  assert cards.load(tmp_path / "deep" / "c.json") == card
  assert [p.name for p in (tmp_path / "deep").iterdir()] == ["c.json"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '"x"', json.dumps({"kind": "other"}), "\xff"])
def test_other_files_are_no_cards(text, tmp_path):
  (tmp_path / "c.json").write_text(text, encoding="latin-1")
  with pytest.raises(UserError, match="is no card"):
    cards.load(tmp_path / "c.json")
  with pytest.raises(UserError, match="there is no card"):
    cards.load(tmp_path / "none.json")


DAMAGE = {  # what is changed -> the message
  "null": ("scores", None, "scores is None"),
  "a list": ("scores", [1], "scores is a list"),
  "empty": ("scores", {}, "without scores"),
  "text": ("scores", {"fid": "high"}, "scores.fid is 'high'"),
  "nested": ("scores", {"fid": {"a": 1}}, "scores.fid is an object"),
  "very large": ("scores", {"fid": 10**400}, "scores.fid is 1000"),
  "spread": ("spread", {"fid@adm": []}, "spread.fid@adm is a list"),
  "spreads": ("spread", 3, "spread is 3"),
  "protocol": ("protocol", "adm", "protocol is 'adm'"),
  "protocol's name": ("protocol.name", 7, "protocol.name is 7"),
  "reference": ("reference", None, "reference is None"),
  "reference's name": ("reference.name", ["x"], "reference.name is a list"),
  "samples": ("samples", [], "samples is a list"),
  "images": ("samples.images", -1, "samples.images is -1"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_cards_end_in_a_line(case, card, tmp_path):
  field, value, message = DAMAGE[case]
  (tmp_path / "c.json").write_text(json.dumps(changed(card, field, value)))
  with pytest.raises(UserError, match=f"c.json is .*card.*{message}"):
    cards.load(tmp_path / "c.json")
  if "." not in field and field != "spread":
    other = copy.deepcopy(card)
    del other[field]
    (tmp_path / "c.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=f"{field} is missing"):
      cards.load(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["[" * 99999, '{"kind": ' * 9999, "9" * 9999, "NaN", "\ufeff{}"])
def test_files_that_hurt_a_reader_of_json(text, tmp_path):
  (tmp_path / "c.json").write_text(text)
  with pytest.raises(UserError, match="is no card"):
    cards.load(tmp_path / "c.json")
  with pytest.raises(UserError, match="is no card"):
    cards.load(tmp_path)


def test_numbers_without_end_are_shown_and_never_the_best(card, tmp_path):
  for name, value in (("a", float("inf")), ("b", float("nan")), ("c", 3)):
    files.write_json(tmp_path / name, changed(card, "scores", {"fid@adm": value, "is@adm": value}))
  text = cards.rank({n: cards.load(tmp_path / n) for n in "abc"})
  assert text.splitlines()[1].split() == ["fid@adm", "inf", "nan", "3*"]
  assert "inf" in cards.table(cards.load(tmp_path / "a"))


def test_names_reach_no_terminal_raw(card):
  odd = changed(card, "reference.name", "caf\udce9\x1b[31m")
  odd = changed(odd, "scores", {"fid\x1b[2J": 1.0})
  text = cards.table(odd) + cards.rank({"a\x1b]0;x\x07\udcff": odd})
  assert text.encode() and "\x1b" not in text and "\x07" not in text


def test_a_head_has_a_key_of_its_own(card):
  key = cards.key_of(card)
  assert key == cards.key_of(copy.deepcopy(card))
  assert key != cards.key_of(changed(card, "samples.seed", 1))
