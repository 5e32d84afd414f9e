"""Where results go: files of others stay, ours are replaced and named."""

import json
import os

import numpy as np
import pytest
from verbs import call, tree

from jaxgen.errors import UserError
from jaxgen.monitor import pictures, results
from jaxgen.sampling import output

X = np.zeros((3, 8, 8, 1), np.uint8)
INFO = {"workdir": "w", "seed": 0, "knobs": {"eta": 0.5}}


def write(path, info=INFO, x=X, labels=None):
  return output.write(str(path), x, labels, info)


@pytest.fixture
def mine(tmp_path):
  """Files of a user's own, of all kinds that verbs write."""
  for name, content in {
    "x.json": b'{"mine": 1}',
    "x.npz": b"PK",
    "x.pt": b"mine",
    "x": b"mine",
    "report.html": b"mine",
    "sweep.md": b"mine",
    "trilemma.html": b"mine",
    "modes.json": b"[1]",
    "broken.json": b"{" * 5000,
  }.items():
    (tmp_path / name).write_bytes(content)
  pictures.PIL.Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
  np.savez(tmp_path / "own.npz", arr_0=X)
  (tmp_path / "link.png").symlink_to(tmp_path / "x.png")
  (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
  return tmp_path


SAMPLE, EVAL = ["sample", "--workdir=W"], ["evaluate", "--workdir=W"]


@pytest.mark.parametrize(
  ("verb", "said"),
  [
    ([*SAMPLE, "--out={}/x.png"], "none that jaxgen would replace"),
    ([*SAMPLE, "--out={}/link.png"], "none that jaxgen would replace"),
    ([*SAMPLE, "--out={}/x.npz"], "none that jaxgen would replace"),
    ([*SAMPLE, "--out={}/own.npz"], "none that jaxgen would replace"),
    ([*SAMPLE, "--out={}/x/y.png"], "x is no folder"),
    ([*SAMPLE, "--out={}/lost/y.png"], "lost is no folder"),
    ([*SAMPLE, "--out={}/y.jpg"], "want x.png, x.npz or a folder"),
    ([*SAMPLE, "--out={}/y.JPEG"], "want x.png, x.npz or a folder"),
    ([*EVAL, "--out={}/x.json"], "none that jaxgen would replace"),
    ([*EVAL, "--out={}/broken.json"], "none that jaxgen would replace"),
    ([*EVAL, "--save_ref={}/own.npz"], "none that jaxgen would replace"),
    ([*EVAL, "--picture={}/x.png"], "none that jaxgen would replace"),
    ([*EVAL, "--picture={}/x.jpg"], "--picture"),
    ([*EVAL, f"--seed={2**70}"], "at most 4294967295"),
    (["likelihood", "--workdir=W", "--out={}/x.json"], "would replace"),
    (["export", "--workdir=W", "--out={}/x.pt"], "would replace"),
    (["sweep", "--workdir=W", "--out={}"], "sweep.md is there"),
    (["sweep", "--workdir=W", "--out={}/x"], "x is no folder"),
    (["trilemma", "--workdirs=W", "--out={}"], "trilemma.html is there"),
    (["modes", "--out={}"], "no result of modes"),
    (["compare", "--configs=digits_gan", "--out={}"], "report.html is there"),
    (["demo", "--out={}"], "report.html is there"),
  ],
  ids=str,
)
def test_what_is_a_users_own_stays(verb, said, mine, capsys, monkeypatch):
  """And is said before anything is loaded or trained."""
  before = tree(mine)
  status, out, lines = call(capsys, monkeypatch, *(word.replace("{}", str(mine)) for word in verb))
  assert (status, out, len(lines)) == (2, "", 1) and said in lines[0], lines
  assert tree(mine) == before


def test_ours_are_replaced_and_an_input_is_not(tmp_path, capsys, monkeypatch):
  for name in ("x.png", "x.npz", "folder"):
    for old in (False, True):
      assert old == (
        results.check_folder(tmp_path / name, output.part_of(INFO))
        if name == "folder"
        else results.check_file(tmp_path / name)
      )
      write(tmp_path / name)
  assert not results.check_file(tmp_path / "new" / "x.png")
  (tmp_path / "empty.png").touch()
  assert not results.check_file(tmp_path / "empty.png")
  (tmp_path / "x.json").write_text(json.dumps({"made": {}, "scores": {}}))
  assert results.check_file(tmp_path / "x.json")
  for flag in ("low_res", "project"):
    status, _, lines = call(
      capsys,
      monkeypatch,
      *SAMPLE,
      f"--{flag}={tmp_path / 'x.npz'}",
      f"--out={tmp_path / 'folder' / '..' / 'x.npz'}",
    )
    assert status == 2 and "would replace what is read" in lines[0]


def test_a_folder_is_of_one_command(tmp_path):
  top = tmp_path / "new"
  write(top, labels=np.arange(3))
  whole = tree(top)
  # Interrupted, with a draft left: the same goes on.
  (top / "000001.png").unlink()
  (top / ".000001.png.7.tmp").write_text("draft")
  write(top, labels=np.arange(3))
  (top / ".000001.png.7.tmp").unlink()
  assert tree(top) == whole
  others = [
    (INFO | {"seed": 1}, X, np.arange(3)),
    (INFO, X[:2], np.arange(2)),
    (INFO, X, np.arange(3) + 1),
    (INFO, X, None),
    (INFO | {"knobs": {"eta": 0.4}}, X, np.arange(3)),
  ]
  for info, x, labels in others:
    with pytest.raises(UserError, match="000000.png|000002.png"):
      write(top, info, x, labels)
  assert tree(top) == whole
  for foreign in ("notes.txt", "sub/000000.png", "000003.png", "0.png"):
    path = top / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(whole[next(iter(whole))])
    with pytest.raises(UserError, match=foreign):
      write(top, labels=np.arange(3))
    path.unlink()
  (top / "elsewhere").symlink_to(tmp_path)
  with pytest.raises(UserError, match="elsewhere"):
    write(top, labels=np.arange(3))


def test_what_is_known_before_the_work_is_enough(tmp_path):
  write(tmp_path / "new", INFO | {"project": {"steps": 2, "losses": [1.0]}})
  known = lambda steps: output.part_of(INFO | {"project": {"steps": steps}})
  assert results.check_folder(tmp_path / "new", known(2))
  with pytest.raises(UserError, match="3 files"):
    results.check_folder(tmp_path / "new", known(3))


def test_a_report_is_replaced_with_all_that_goes_with_it(tmp_path):
  look = lambda: results.check_report(tmp_path, "r.json", ("r.md", "r.png"))
  assert not look()
  (tmp_path / "r.json").write_text('{"rows": []}')
  (tmp_path / "r.md").write_text("ours")
  pictures.save_png(tmp_path / "r.png", X[0].repeat(3, -1))
  assert look()
  os.remove(tmp_path / "r.json")
  with pytest.raises(UserError, match="r.md is there"):
    look()


def test_a_picture_is_called_png(tmp_path):
  for name in ("x.jpg", "x", "x.png.jpeg"):
    with pytest.raises(UserError, match="call it x.png"):
      pictures.save_png(tmp_path / name, X[0].repeat(3, -1))
  assert not list(tmp_path.iterdir())
