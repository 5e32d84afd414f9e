"""Objects by the names of files, on a server that is not ours, and when it fails."""

import io
import threading

import numpy as np
import pytest
from etils import epath

from jaxgen import files
from jaxgen.bucket import growing, objects, replica
from jaxgen.errors import UserError
from jaxgen.monitor.log import Logger, read_jsonl

pytestmark = pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)


def test_paths_are_as_pathlib_has_them(bucket):
  top = files.path(bucket.folder)
  assert not top.exists() and not top.is_dir() and files.names(top) == []
  (top / "a" / "b.txt").write_text("one\n")
  with (top / "a" / "c.bin").open("wb") as file:
    file.write(b"\0\1")
  assert top.is_dir() and top.exists() and not top.is_file()
  assert (top / "a" / "b.txt").is_file() and not (top / "a" / "b.txt").is_dir()
  assert not (top / "a" / "b").exists()
  assert (top / "a" / "b.txt").read_text() == "one\n" and (top / "a" / "c.bin").stat().length == 2
  assert files.names(top) == ["a"] and files.folders(top) == ["a"]
  assert files.sizes(top) == {"a/b.txt": None, "a/c.bin": None}
  assert [str(p) for p in (top / "a").glob("*.txt")] == [f"{top}/a/b.txt"]
  assert [(str(p), d, f) for p, d, f in top.walk()] == [
    (str(top), ["a"], []),
    (f"{top}/a", [], ["b.txt", "c.bin"]),
  ]
  assert isinstance(epath.Path(str(top)), type(top)) and epath.Path(top / "a").parent == top
  files.move(top / "a", top / "z", last="c.bin")
  assert files.sizes(top).keys() == {"z/b.txt", "z/c.bin"}
  (top / "z").rmtree()
  assert not top.exists()
  with pytest.raises(FileNotFoundError, match="no such object"):
    (top / "z").read_bytes()


def test_a_failed_write_leaves_what_was_there(bucket):
  path = files.path(bucket.folder) / "x"
  files.write_text(path, "old")
  with pytest.raises(KeyError), files.atomic(path) as draft:
    draft.write_text("new")
    raise KeyError
  with pytest.raises(KeyError), path.open("wb") as file:
    file.write(b"new")
    raise KeyError
  assert path.read_text() == "old"


def test_of_all_who_make_a_folder_at_once_one_does(bucket):
  place, made, refused = f"{bucket.folder}/7", [], []
  gate = threading.Barrier(8)

  def make(i):
    gate.wait()
    try:
      files.new_folder(place, {"mark": f"by {i}"}, draft="none")
      made.append(i)
    except FileExistsError:
      refused.append(i)

  threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
  [t.start() for t in threads]
  [t.join() for t in threads]
  assert len(made) == 1 and len(refused) == 7
  assert (files.path(place) / "mark").read_text() == f"by {made[0]}"


def test_conditions_hold_when_answers_are_lost(bucket, quick):
  bucket.faults.drop = 0.4
  address, before = f"{bucket.folder}/x", objects.retries()
  generation = objects.MISSING
  for i in range(12):  # each on the condition that the last one came through, once
    old, generation = generation, objects.write(address, b"%d" % i, generation)
    assert generation and objects.read(address) == b"%d" % i
    assert objects.write(address, b"late", old) is None
  objects.remove([address])
  assert objects.generation(address) == objects.MISSING
  assert bucket.answers["answer lost"] and objects.retries() > before


def test_who_asks_too_much_waits(bucket, quick):
  bucket.faults.throttle = 0.3
  names = [f"{i:02}" for i in range(12)]
  for name in names:
    objects.write(f"{bucket.folder}/{name}", name.encode())
  assert objects.names_below(bucket.folder) == names
  objects.remove(f"{bucket.folder}/{n}" for n in names)
  assert objects.names_below(bucket.folder) == []
  answers = (503,) if bucket.address == "s3://bucket" else (429, 503)
  assert all(bucket.answers[status] for status in answers)


@pytest.mark.parametrize(
  "status, code, line",
  [
    (401, "InvalidAccessKeyId", "no valid credentials: run `gcloud"),
    (403, "AccessDenied", "denied: give this account"),
    (503, "SlowDown", "throttled"),
  ],
)
def test_refusals_say_what_to_do(bucket, impatient, status, code, line):
  address = f"{bucket.folder}/x"
  objects.write(address, b"there")
  bucket.faults.status, bucket.faults.code = status, code
  if code == "InvalidAccessKeyId" and bucket.address.startswith("s3"):
    bucket.faults.status = 403  # it has no status of its own there
  for ask in (
    lambda: objects.read(address),
    lambda: objects.write(address, b"new"),
    lambda: objects.names_below(bucket.folder),
    lambda: files.check_writable(bucket.folder),
    lambda: files.local(address),
  ):
    with pytest.raises(OSError) as error:
      ask()
    assert error.value.strerror.startswith(line) and error.value.filename.startswith(bucket.address)


def test_who_is_away_or_not_there(bucket, impatient):
  with bucket.outage(), pytest.raises(OSError, match="cannot be reached"):
    objects.read(f"{bucket.folder}/x")
  with pytest.raises(OSError, match="no such bucket"):
    files.check_writable(bucket.address.replace("bucket", "another"))
  scheme = bucket.address.removesuffix("bucket")
  for address in (scheme, f"{scheme}/x"):
    with pytest.raises(OSError, match=f"{scheme}BUCKET/NAME"):
      objects.read(address)
  with pytest.raises(UserError, match="https://x/y: a path is a folder or file, gs://"):
    files.path("https://x/y")


def test_a_log_that_two_write_has_all_lines(bucket):
  address = f"{bucket.folder}/log"
  one = files.growing(address)
  for i in range(20):
    one.write(f"one {i}\n")
    if i % 5 == 0:
      one.upload()
      files.append(address, b"two %d\n" % i)
  files.settle()
  before = objects.read(address).decode().splitlines()
  one.write("last\n")
  one.close()
  lines = objects.read(address).decode().splitlines()
  assert lines == [*before, "last"] and len(lines) == 25
  assert [x for x in lines if x[:3] == "one"] == [f"one {i}" for i in range(20)]
  assert [x for x in lines if x[:3] == "two"] == [f"two {i}" for i in (0, 5, 10, 15)]


def test_a_log_waits_for_the_network(bucket, impatient, monkeypatch, capsys):
  monkeypatch.setattr(growing, "EVERY", 0.05)
  log = files.growing(f"{bucket.folder}/log")
  with bucket.outage():
    log.write("a\n")
    log.flush()
    with pytest.raises(OSError, match="cannot be reached"):
      files.settle()
  log.write("b\n")
  log.close()
  assert objects.read(f"{bucket.folder}/log") == b"a\nb\n"


def test_a_mirror_has_what_was_written(bucket):
  mirror = files.mirrored(f"{bucket.folder}/events")
  place = files.Path(mirror.path)
  (place / "one").write_text("1")
  mirror.upload()
  (place / "one").write_text("12")
  (place / "two").write_bytes(b"\0" * (growing.FULL + 1))
  assert mirror.full
  mirror.close()
  assert not place.exists()
  assert objects.read(f"{bucket.folder}/events/one") == b"12"
  assert len(objects.read(f"{bucket.folder}/events/two")) == growing.FULL + 1


def test_events_come_in_files_that_are_left_when_they_are_large(bucket, monkeypatch, quick):
  monkeypatch.setattr(growing, "FULL", 20_000)
  noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
  logger = Logger(bucket.folder, total_steps=3, batch=1, stream=io.StringIO())
  for step in (1, 2, 3):
    logger.write_images(step, {"samples": noise})
    logger.write_scalars(step, {"loss": 1.0})
  logger.close()
  folder = files.local(f"{bucket.folder}/events")
  assert len(list(folder.iterdir())) == 4 and [
    r["step"] for r in read_jsonl(files.path(bucket.folder) / "metrics.jsonl")
  ] == [1, 2, 3]


def test_copies_follow_their_objects(bucket, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  for name in ("a.txt", "b/c.txt"):
    objects.write(f"{bucket.folder}/{name}", name.encode())
  copy = files.local(bucket.folder)
  read = lambda: {p.relative_to(copy).as_posix(): p.read_text() for p in copy.rglob("*.txt")}
  assert copy.name == bucket.folder.rpartition("/")[2]
  assert read() == {"a.txt": "a.txt", "b/c.txt": "b/c.txt"}
  first = {p: p.stat() for p in copy.rglob("*.txt")}
  assert files.local(bucket.folder) == copy
  assert {p: p.stat().st_ino for p in first} == {p: s.st_ino for p, s in first.items()}
  objects.write(f"{bucket.folder}/a.txt", b"other")  # as long as before
  objects.write(f"{bucket.folder}/b/d.txt", b"new")
  files.local(bucket.folder)
  assert read() == {"a.txt": "other", "b/c.txt": "b/c.txt", "b/d.txt": "new"}
  assert (copy / "a.txt").stat().st_mtime_ns != first[copy / "a.txt"].st_mtime_ns
  assert (copy / "b/c.txt").stat().st_ino == first[copy / "b/c.txt"].st_ino
  objects.remove([f"{bucket.folder}/b/c.txt"])
  files.local(bucket.folder)
  assert read() == {"a.txt": "other", "b/d.txt": "new"}
  assert [p.name for p in copy.parents[1].iterdir() if p.name.startswith(".")] == []


def test_copies_take_no_more_than_they_may(bucket, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setenv(replica.LIMIT, "0.00001")  # 10,000 bytes
  for name in "abc":
    objects.write(f"{bucket.folder}/{name}", b"x" * 4000)
  a, b = (files.local(f"{bucket.folder}/{name}") for name in "ab")
  files.local(f"{bucket.folder}/a")  # used later than b
  c = files.local(f"{bucket.folder}/c")
  assert a.exists() and c.exists() and not b.exists()
  with pytest.raises(UserError, match="1e-05 GB .*JAXGEN_COPIES_GB"):
    files.local(bucket.folder)
  with pytest.raises(UserError, match="there is no object .*none"):
    files.local(f"{bucket.folder}/none")
  with monkeypatch.context() as m:  # this server would take them apart
    m.setattr(objects, "names_below", lambda _: ["../../x"])
    with pytest.raises(UserError, match="copied elsewhere"):
      files.local(f"{bucket.folder}/d")
  monkeypatch.setenv(replica.LIMIT, "many")
  with pytest.raises(UserError, match="JAXGEN_COPIES_GB=many"):
    files.local(f"{bucket.folder}/a")
