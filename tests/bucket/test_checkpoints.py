"""What is saved into a bucket comes back to the bit, or is known to be damaged."""

import jax
import pytest
from test_checkpoint_damage import abstract
from test_manager import bits, quiet, state

from jaxgen import files
from jaxgen.bucket import growing, objects
from jaxgen.checkpoint import step_folder
from jaxgen.checkpoint.disk import problem, steps
from jaxgen.checkpoint.restore import latest_meta, restore_subset
from jaxgen.errors import UserError

pytestmark = pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)


def save(workdir, *numbers, **how):
  with quiet(workdir, **how) as checkpoints:
    for number in numbers:
      assert checkpoints.save(number, state(number), {"note": number})
      assert checkpoints.wait() is None


def test_round_trip_is_exact_and_old_steps_go(bucket):
  save(bucket.folder, 10, 20, 30, 40, keep=2, keep_every=20)
  assert steps(bucket.folder) == [20, 30, 40]
  with quiet(bucket.folder) as checkpoints:
    step, restored, meta = checkpoints.restore(abstract(state(0)))
    assert (step, meta["note"]) == (40, 40) and bits(restored) == bits(state(40))
    assert checkpoints.save(50, state(50), {})  # goes on after restoring
  assert latest_meta(bucket.folder)["step"] == 50
  _, some, _ = restore_subset(bucket.folder, {"ema": abstract(state(0)).ema}, step=30)
  assert bits(some["ema"]) == bits(state(30).ema)


def test_damage_is_known_and_put_aside(bucket, capsys):
  save(bucket.folder, 10, 20, 30, keep=9)
  root = files.path(bucket.folder) / "checkpoints"
  (root / "30" / "meta" / "metadata").unlink()
  assert problem(root / "30") == "'meta/metadata' is missing"
  data = max((p for p in (root / "20" / "state").walk()), key=lambda p: len(p[2]))  # a folder of it
  name = next(n for n in objects.names_below(root / "20" / "state") if "/d/" in f"/{n}")
  content = bytearray(objects.read(root / "20" / "state" / name))
  content[len(content) // 2] ^= 1
  objects.write(root / "20" / "state" / name, bytes(content))
  assert data
  with quiet(bucket.folder) as checkpoints:
    step, restored, _ = checkpoints.restore(abstract(state(0)))
    said = capsys.readouterr().out
    assert step == 10 and bits(restored) == bits(state(10))
    assert "checkpoint 30 is not used: 'meta/metadata' is missing; moved to" in said
    assert "checkpoint 20 is not used" in said
    assert steps(bucket.folder) == [10]
    assert set(files.folders(f"{bucket.folder}/quarantine")) == {"20-1", "30-1"}
    assert checkpoints.save(20, state(20), {})
  assert steps(bucket.folder) == [10, 20]


def test_what_was_begun_and_killed_is_cleared(bucket):
  save(bucket.folder, 10)
  root = files.path(bucket.folder) / "checkpoints"
  step_folder.begin(root / "20")
  objects.write(root / "20" / "state" / "half", b"of it")
  objects.write(root / "30" / "mine", b"not ours")
  assert steps(bucket.folder) == [10]
  with pytest.raises(FileExistsError, match="is in the way"):
    step_folder.begin(root / "20")
  save(bucket.folder, 20)
  assert steps(bucket.folder) == [10, 20]
  assert objects.read(root / "30" / "mine") == b"not ours"
  with quiet(bucket.folder) as checkpoints:
    checkpoints.save(30, state(30), {})
    assert "move away what is there and not ours to remove" in checkpoints.wait()
    assert checkpoints.save(40, state(40), {}) and checkpoints.wait() is None


def test_no_step_counts_before_the_log_has_arrived(bucket, monkeypatch):
  monkeypatch.setattr(growing, "EVERY", 1000.0)  # it would not come by itself
  log = files.growing(f"{bucket.folder}/metrics.jsonl")
  log.write("row 10\n")
  save(bucket.folder, 10)
  assert objects.read(f"{bucket.folder}/metrics.jsonl") == b"row 10\n"
  log.close()


def test_saving_through_faults(bucket):
  bucket.faults.throttle = bucket.faults.drop = 0.02
  save(bucket.folder, 10)
  bucket.faults.throttle = bucket.faults.drop = 0.0
  with quiet(bucket.folder) as checkpoints:
    assert bits(checkpoints.restore(abstract(state(0)))[1]) == bits(state(10))


def test_other_buckets_are_refused(bucket):
  other = bucket.address.replace("bucket", "another")
  with pytest.raises(UserError, match=f"cannot write to {other}/w.*no such bucket"):
    quiet(f"{other}/w")
  bucket.faults.status, bucket.faults.code = 403, "AccessDenied"
  with pytest.raises(UserError, match="cannot write to .*denied: give this account the right"):
    quiet(bucket.folder)
  with pytest.raises((UserError, OSError), match="denied"):
    latest_meta(bucket.folder)
  assert jax.process_count() == 1
