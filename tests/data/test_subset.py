"""Parts of data sets by their names."""

import numpy as np
import pytest
from PIL import Image

from jaxgen.data.sources import open_source, open_split
from jaxgen.data.subset import names_of, parted
from jaxgen.errors import UserError


def counts(name, split="train"):
  return np.bincount(open_source(name, split).arrays()[1], minlength=10).tolist()


def test_classes_are_left_out_and_labels_stay():
  whole = counts("digits")
  part = counts("digits:without=3,7")
  assert part == [0 if i in (3, 7) else n for i, n in enumerate(whole)]
  assert counts("digits:only=3", "test") == [
    n * (i == 3) for i, n in enumerate(counts("digits", "test"))
  ]
  source = open_source("digits:without=3")
  assert source.name == "digits:without=3" and source.classes == 10
  assert source.fingerprint != open_source("digits:without=4").fingerprint


def test_the_first_of_each_class_are_nested_and_the_test_split_is_whole():
  few, more = (open_source(f"digits:first={n}").arrays() for n in (5, 20))
  assert np.bincount(few[1]).tolist() == [5] * 10
  many = {x.tobytes() for x in more[0]}
  assert all(x.tobytes() in many for x in few[0])
  assert counts("digits:first=5", "test") == counts("digits", "test")
  assert counts("digits:without=0,first=5") == [0] + [5] * 9


@pytest.fixture
def folder(tmp_path):
  for i in range(8):
    place = tmp_path / "photos" / ("cat" if i % 2 else "dog")
    place.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(image).save(place / f"{i}.png")
  return tmp_path / "photos"


def test_of_a_folder_by_name_and_what_its_images_are_called(folder):
  source = open_source(f"folder:{folder}:without=cat", size=8)
  assert names_of(source) == [f"dog/{i}.png" for i in (0, 2, 4, 6)]
  data = {"source": f"folder:{folder}:first=1", "split": "train", "size": 8, "holdout": 0.3}
  assert len(open_split(data)) <= 2  # of what is not held out
  assert names_of(open_source("digits:first=1"))[:2] == ["0", "1"]


@pytest.mark.parametrize(
  "name, says",
  [
    ("digits:without=33", "no class '33'"),
    ("digits:first=0", "first=0: want such as first=20"),
    ("digits:only=", "want such as only=3"),
    ("digits:only=3,frist=2", "frist= is no option"),
    ("digits:first=2,first=3", "first= twice"),
    ("digits:without=0,1,2,3,4,5,6,7,8,9", "no such examples"),
  ],
)
def test_slips(name, says):
  with pytest.raises(UserError, match=says):
    open_source(name)


def test_options_are_told_from_paths():
  assert parted("folder:/a:b/first=c") == ("folder:/a:b/first=c", {})
  assert parted("digits:without=3,7,first=20") == (
    "digits",
    {"without": ["3", "7"], "first": ["20"]},
  )
