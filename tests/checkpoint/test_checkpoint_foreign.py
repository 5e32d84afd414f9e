"""What others put beside checkpoints, or in their place, is never touched."""

import os
import shutil

import jax.numpy as jnp
import pytest
from test_checkpoint_damage import abstract, assert_is, state

from jaxgen.checkpoint import step_folder
from jaxgen.checkpoint.disk import steps
from jaxgen.checkpoint.manager import Checkpoints
from jaxgen.checkpoint.restore import restore_subset
from jaxgen.errors import UserError


def fill(folder):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "mine.txt").write_text(folder.name)


def everything(top):
  """All below, no link followed: contents, or where links point."""
  content = {}
  for where, folders, names in os.walk(top):
    for name in folders + names:
      path = os.path.join(where, name)
      if os.path.islink(path):
        content[path] = os.readlink(path)
      elif os.path.isfile(path):
        with open(path, "rb") as f:
          content[path] = f.read()
      else:
        content[path] = None
  return content


def some(step):
  return {"n": jnp.int32(step)}


STRANGERS = [
  "best",
  "7",
  "007",
  "²",
  "-3",
  "1e1",
  "20240101123000",
  "٣",
  "9999999999",
  "state",
  "metadata",
  "quarantine",
  ".hidden",
  "30.orbax-checkpoint-tmp",
  "30.orbax-checkpoint-tmp-12",
]


@pytest.fixture
def crowded(tmp_path):
  """A workdir full of others' things; what lies outside of it too."""
  root = tmp_path / "w" / "checkpoints"
  for name in STRANGERS:
    fill(root / name)
  for name in ("5", "notes", "SEAL.json"):
    (root / name).write_text("mine")
  fill(tmp_path / "far")
  for name in ("far", "3", "2"):
    (root / name).symlink_to(tmp_path / "far")
  (root / "1").symlink_to("nowhere")
  fill(root / "4")  # somebody else's finished checkpoint
  (root / "4" / "commit_success.txt").write_text("mine")
  (root / "4" / "_CHECKPOINT_METADATA").write_text("mine")
  (root / "6" / "state").mkdir(parents=True)  # of ours, from before the mark
  (root / "6" / "_CHECKPOINT_METADATA").write_text("{}")
  return tmp_path


def test_training_among_others_things(crowded):
  before, log = everything(crowded), []
  for life in range(3):
    with Checkpoints(crowded / "w", every=10, keep=2, log=log.append) as c:
      restored = c.restore(abstract(some(0)))
      assert (restored[0] if restored else 0) == 30 * life
      for step in range(30 * life + 10, 30 * life + 31, 10):
        assert c.save(step, some(step), {}) and c.wait() is None
  assert steps(crowded / "w") == [80, 90]
  after = everything(crowded)
  assert {k: after.get(k) for k in before} == before
  new = {k for k in after if k not in before and "/80" not in k and "/90" not in k}
  assert not new
  assert len(log) == 3 and len(set(log)) == 1  # once in every life
  for part in ("'-3', '007', ", " more, not checkpoints", "move '1', '2', '3'"):
    assert part in log[0]
  assert "left alone" in log[0] and "\n" not in log[0]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7])
def test_a_step_whose_place_is_taken(crowded, step):
  before, log = everything(crowded), []
  with Checkpoints(crowded / "w", every=1, log=log.append) as c:
    assert not c.save(step, some(step), {})
    place = crowded / "w" / "checkpoints" / str(step)
    assert "move away what is there and not ours" in c.check()
    assert str(place) in c.check() and len(log) == 1
    assert everything(crowded) == before
    with pytest.raises(UserError, match="move away"):
      c.close()
    assert c.save(11, some(11), {}) and c.wait() is None  # the next one can
    place.rename(crowded / "moved")
    assert c.save(step, some(step), {}) and c.wait() is None
  after = everything(crowded)
  moved = {k for k in before if not k.startswith(str(place))}
  assert {k: after[k] for k in moved} == {k: before[k] for k in moved}


@pytest.mark.parametrize("name", ["quarantine", "checkpoints"])
def test_folders_that_are_links(tmp_path, name):
  """To shared storage: it works there, and nothing else there is hit."""
  far = tmp_path / "far"
  fill(far / "etc")
  fill(far / "9")
  before = everything(far)
  (tmp_path / "w").mkdir()
  (tmp_path / "w" / name).symlink_to(far)
  log = []
  with Checkpoints(tmp_path / "w", every=10, keep=2, log=log.append) as c:
    for step in (10, 20, 30):
      assert c.save(step, state(step), {}) and c.wait() is None
    root = tmp_path / "w" / "checkpoints"
    shutil.rmtree(root / "30" / "state")
    assert c.restore(abstract(state(0)))[0] == 20
    assert c.save(30, state(30), {}) and c.wait() is None
  assert steps(tmp_path / "w") == [20, 30]
  assert (tmp_path / "w" / "quarantine" / "30-1").is_dir()
  after = everything(far)
  assert {k: after[k] for k in before} == before


def test_a_linked_step_is_read_but_never_moved_or_removed(tmp_path):
  with Checkpoints(tmp_path / "old", every=10) as c:
    c.save(10, state(10), {})
  root = tmp_path / "w" / "checkpoints"
  root.mkdir(parents=True)
  (root / "10").symlink_to(tmp_path / "old" / "checkpoints" / "10")
  before = everything(tmp_path / "old")
  with Checkpoints(tmp_path / "w", every=10, keep=2) as c:
    step, tree, _ = c.restore(abstract(state(0)))
    assert step == 10
    assert_is(tree, 10)
    for step in (20, 30, 40):
      assert c.save(step, state(step), {})
  assert (root / "10").is_symlink() and steps(tmp_path / "w") == [10, 30, 40]
  assert everything(tmp_path / "old") == before
  log = []
  shutil.rmtree(root / "30")
  shutil.rmtree(root / "40")
  (tmp_path / "old/checkpoints/10/SEAL.json").write_text("{}")
  before = everything(tmp_path / "old")
  with Checkpoints(tmp_path / "w", every=10, log=log.append) as c:
    assert c.restore(abstract(state(0))) is None
  assert "not ours to move" in log[0] and (root / "10").is_symlink()
  assert everything(tmp_path / "old") == before


@pytest.mark.parametrize("where", ["", "state", "meta"])
def test_a_file_of_others_in_a_step_keeps_it(tmp_path, where):
  with Checkpoints(tmp_path, every=10, keep=2) as c:
    c.save(10, some(10), {})
    c.wait()
    mine = tmp_path / "checkpoints" / "10" / where / "mine.txt"
    mine.write_text("mine")
    for step in (20, 30, 40):
      c.save(step, some(step), {})
  assert mine.read_text() == "mine" and steps(tmp_path) == [30, 40]


def test_a_file_of_others_in_an_unfinished_step_keeps_it(tmp_path):
  root = tmp_path / "checkpoints"
  root.mkdir()
  step_folder.begin(root / "10")
  (root / "10" / "mine.txt").write_text("mine")
  with Checkpoints(tmp_path, every=10) as c:
    assert c.restore(abstract(some(0))) is None
    assert not c.save(10, some(10), {})
    assert c.save(20, some(20), {}) and c.wait() is None
  assert (root / "10" / "mine.txt").read_text() == "mine"


def test_checkpoints_from_before_the_mark(tmp_path):
  """Are restored, put aside and grow old like all others."""
  with Checkpoints(tmp_path, every=10, keep=4) as c:
    for step in (10, 20, 30, 40):
      c.save(step, some(step), {})
  root = tmp_path / "checkpoints"
  for step in (10, 20, 30, 40):
    (root / str(step) / step_folder.MARK).unlink()
    (root / str(step) / "SEAL.json").unlink()
    if step != 20:
      (root / str(step) / "SEAL.json").write_text(
        step_folder.json.dumps(step_folder.sizes(root / str(step)))
      )
  shutil.rmtree(root / "40" / "state")
  log = []
  with Checkpoints(tmp_path, every=10, keep=2, log=log.append) as c:
    assert c.restore(abstract(some(0)))[0] == 30
    assert c.save(40, some(40), {}) and c.wait() is None
  assert len(log) == 1 and "quarantine" in log[0]
  assert steps(tmp_path) == [20, 30, 40]  # 20 may be anybody's
  assert restore_subset(tmp_path, abstract(some(0)), step=20)[0] == 20


class Killed(BaseException):
  """In place of SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("at", range(24))
def test_killed_between_any_two_calls(tmp_path, at, monkeypatch):
  """Whatever a save or a removal was at, the next life finds it ours."""
  root = tmp_path / "checkpoints"
  root.mkdir()
  fill(root / "best")
  count = 0

  def mortal(call):
    def wrapped(*args, **kwargs):
      nonlocal count
      count += 1
      if count > at:
        raise Killed
      return call(*args, **kwargs)

    return wrapped

  with monkeypatch.context() as m:
    for name in ("rename", "mkdir", "unlink", "rmdir"):
      m.setattr(os, name, mortal(getattr(os, name)))
    m.setattr(step_folder.pathlib.Path, "write_text", mortal(step_folder.pathlib.Path.write_text))
    try:
      step_folder.begin(root / "10")
      (root / "10" / "state").mkdir()
      (root / "10" / "state" / "a").write_text("a")
      (root / "10" / "commit_success.txt").write_text("")
      (root / "10" / "SEAL.json").write_text(step_folder.json.dumps(step_folder.sizes(root / "10")))
      assert step_folder.removable(root / "10") or count > at
      step_folder.remove(root / "10")
    except Killed:
      pass
  committed = (root / "10" / "commit_success.txt").exists()
  step_folder.clear(root)
  if step_folder.empty(root / "10"):  # as a save of that step does
    (root / "10").rmdir()
  assert (root / "10").exists() == committed
  if not committed:
    step_folder.begin(root / "10")
    assert sorted(os.listdir(root)) == ["10", "best"]
    step_folder.remove(root / "10")
    assert os.listdir(root) == ["best"]
  assert (root / "best" / "mine.txt").read_text() == "best"


def test_what_cannot_be_put_aside_is_told_and_not_taken_for_saved(tmp_path):
  log = []
  with Checkpoints(tmp_path, every=10, log=log.append) as c:
    for step in (10, 20):
      c.save(step, some(step), {})
    c.wait()
    (tmp_path / "checkpoints/20/meta/metadata").write_text("{}")
    (tmp_path / "quarantine").write_text("mine")
    assert c.restore(abstract(some(0)))[0] == 10
    assert len(log) == 1 and "cannot be moved" in log[0]
    assert not c.save(20, some(20), {}) and "move away" in c.check()
    assert c.save(30, some(30), {}) and c.wait() is None
  assert (tmp_path / "quarantine").read_text() == "mine"


def test_names_in_quarantine_that_are_taken(tmp_path):
  with Checkpoints(tmp_path, every=10, log=lambda line: None) as c:
    for name in ("20-1", "20-3"):
      fill(tmp_path / "quarantine" / name)
    (tmp_path / "quarantine" / "20-2").symlink_to("nowhere")
    before = everything(tmp_path / "quarantine")
    c.save(10, some(10), {})
    for _ in range(2):
      c.save(20, some(20), {})
      c.wait()
      (tmp_path / "checkpoints/20/meta/metadata").unlink()
      assert c.restore(abstract(some(0)))[0] == 10
  after = everything(tmp_path / "quarantine")
  assert {k: after[k] for k in before} == before
  assert {"20-4", "20-5"} < set(os.listdir(tmp_path / "quarantine"))
