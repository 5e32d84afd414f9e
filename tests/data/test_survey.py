"""What is seen of a data set before anything is spent on it."""

import json

import numpy as np
import pytest
from mixed import CLASSES, TEXT, TRUNCATED, mixed_folder
from PIL import Image
from test_phash import texture

from jaxgen.data.survey import resolution, survey
from jaxgen.errors import UserError


def write(folder, images):
  folder.mkdir()
  for i, x in enumerate(images):
    Image.fromarray(x).save(folder / f"{i:03d}.png")
  return {"source": f"folder:{folder}"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  return mixed_folder(tmp_path_factory.mktemp("data") / "ünser", 63)


def test_a_folder_of_all_kinds_of_files(mixed):
  seen = survey({"source": f"folder:{mixed}", "holdout": 0.2})
  assert seen.data["size"] == 32 and "100% of the images" in seen.reason
  assert (seen.data["channels"], seen.data["classes"], seen.count) == (3, 3, 63)
  assert all(name in seen.classes for name in CLASSES)
  assert sorted(line.split(": ")[0].split("/")[1] for line in seen.skipped) == [TEXT, TRUNCATED]
  assert (seen.duplicates, seen.near_duplicates) == (1, 1)
  assert "near.png" in seen.example[0] + seen.example[1]
  assert not seen.own_test and 4 <= seen.test <= 25 and seen.train + seen.test <= 63
  assert seen.sizes[0][0] >= 40 and seen.sizes[0] <= seen.sizes[1] <= seen.sizes[2]
  text = "\n".join(seen.lines())
  assert "2 files cannot be read" in text and "so few images" in text
  assert json.loads(json.dumps(seen.json()))["count"] == 63


def test_sizes_asked_for_and_what_a_machine_can_do(mixed):
  data = {"source": f"folder:{mixed}", "holdout": 0.2}
  seen = survey(data | {"size": 64})
  assert seen.data["size"] == 64 and 0 < seen.small < 63
  assert any("are enlarged" in line for line in seen.lines())
  seen = survey(data, most=16)
  assert seen.data["size"] == 16 and "--size=32" in seen.reason


def test_resolution_is_what_nine_in_ten_images_reach():
  assert resolution([300] * 9 + [40], 256)[0] == 256
  assert resolution([300] * 8 + [40] * 2, 256)[0] == 32
  assert resolution([8], 256)[0] == 8
  with pytest.raises(UserError, match="short sides are 4 pixels"):
    resolution([4, 300], 256)
  with pytest.raises(UserError, match="none of the image files can be read"):
    resolution([], 256)


def test_data_with_a_test_split_of_their_own():
  seen = survey({"source": "digits", "holdout": 0.2})
  assert seen.own_test and (seen.train, seen.test) == (1438, 359)
  assert (seen.data["size"], seen.data["channels"], seen.data["classes"]) == (8, 1, 10)
  assert any("of a split of their own" in line for line in seen.lines())


def test_what_there_is_nothing_to_learn_from(tmp_path):
  images = [texture(np.random.default_rng(i), 32) for i in range(5)]
  with pytest.raises(UserError, match="5 different images: want 16 or more"):
    survey(write(tmp_path / "five", images))
  with pytest.raises(UserError, match="1 different image: want 16"):
    survey(write(tmp_path / "one", images[:1]))
  with pytest.raises(UserError, match="all 20 images of .* look alike"):
    survey(write(tmp_path / "alike", images[:1] * 20))
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="there are no images in"):
    survey({"source": f"folder:{tmp_path / 'empty'}"})
  with pytest.raises(UserError, match="are points"):
    survey({"source": "points:ring8"})
