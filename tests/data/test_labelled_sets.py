"""Data sets of samples: written again, and never over files of others."""

import numpy as np
import pytest

from jaxgen.data.labelled_sets import FORMS, write_set
from jaxgen.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
Y = np.arange(6) % 2


def write(out, form):
  return write_set(out, form, X, Y, ["a", "b"], {"workdir": "w"})


@pytest.mark.parametrize("form", FORMS)
def test_sets_are_written_again_and_several_in_a_process(form, tmp_path):
  assert write(tmp_path / "one", form) == write(tmp_path / "one", form)
  assert write(tmp_path / "two", form).exists()


@pytest.mark.parametrize("form", ["folder", "array_record"])
def test_a_folder_with_files_of_others_is_kept(form, tmp_path):
  ours = write(tmp_path / "ours", form)
  (ours / "mine.txt").write_text("mine")
  other = tmp_path / "other"
  other.mkdir()
  (other / "made.json").write_text("{}")
  (tmp_path / "link").symlink_to(write(tmp_path / "far", form))
  for out in (ours, other, tmp_path / "link"):
    with pytest.raises(UserError, match="no data set that jaxgen wrote"):
      write(out, form)
  assert (ours / "mine.txt").read_text() == "mine" and (other / "made.json").exists()
  assert (tmp_path / "far" / "made.json").exists()


def test_an_npz_of_others_is_kept(tmp_path):
  np.savez(tmp_path / "x.npz", mine=1)
  with pytest.raises(UserError, match="no data set that jaxgen wrote"):
    write(tmp_path / "x", "npz")
  assert list(np.load(tmp_path / "x.npz")) == ["mine"]
