"""A workdir in a bucket: the same bits as in a folder, through kills and faults."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from test_train import bits, flags, settings
from verbs import ROOT, start

from jaxgen import files, train
from jaxgen.bucket import objects
from jaxgen.checkpoint.disk import steps
from jaxgen.data.labelled_sets import write_set
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError
from jaxgen.monitor import pictures
from jaxgen.monitor.log import append, read_jsonl, read_rows

both = pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)
S3_LATER = ["gs", pytest.param("s3", marks=pytest.mark.slow)]
both_later = pytest.mark.parametrize("bucket", S3_LATER, indirect=True)
GAN = ROOT / "configs" / "points_gan.py"


def rows(workdir):
  """The log, without what depends on time."""
  timeless = lambda k: k != "time" and not k.startswith("goodput/")
  return [
    {k: v for k, v in row.items() if timeless(k)}
    for row in read_jsonl(files.path(workdir) / "metrics.jsonl")
  ]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
  """A training in a folder: its state, its log."""
  workdir = tmp_path_factory.mktemp("local")
  return bits(train.train(settings(steps=20), str(workdir), quiet=True)), rows(workdir)


@both_later
def test_same_bits_through_throttling_and_an_outage(bucket, quick, local, capsys):
  """The bucket is away while step 10 is saved; nothing is lost by it."""
  bucket.faults.throttle = bucket.faults.drop = 0.01
  end = threading.Event()

  def harm():
    root = f"{bucket.folder[len(bucket.address) + 1 :]}/checkpoints/10/"
    while not bucket.names(root) and not end.wait(0.02):
      pass
    with bucket.outage():
      time.sleep(3)

  thread = threading.Thread(target=harm)
  thread.start()
  state = train.train(settings(steps=20), bucket.folder)
  end.set()
  thread.join()
  assert bits(state) == local[0] and rows(bucket.folder) == local[1]
  assert bucket.answers["away"] and steps(bucket.folder)[-2:] == [15, 20]
  assert "requests to the bucket were made again" in capsys.readouterr().err
  assert read_rows(files.path(bucket.folder) / "metrics.jsonl")[-1]["goodput/retries"] > 0
  assert {".jaxgen.lock", "checkpoints", "events", "metrics.jsonl"} == set(
    files.names(bucket.folder)
  )


@both
def test_sigkill_and_the_same_bits(bucket, local):
  """Killed while step 10 is saved, the same command ends like any other."""
  c = settings(steps=20)
  process = start("train", *flags(c), f"--workdir={bucket.folder}")
  while not objects.names_below(f"{bucket.folder}/checkpoints/10") and process.poll() is None:
    time.sleep(0.01)
  process.kill()
  process.communicate()
  state = train.train(c, bucket.folder, quiet=True)
  assert bits(state) == local[0] and rows(bucket.folder) == local[1]
  append(bucket.folder, 20, {"eval/fid": 1.0})
  assert rows(bucket.folder)[-1]["eval/fid"] == 1.0


@both_later
def test_verbs_read_and_write_there(bucket, verb, tmp_path):
  config = f"{bucket.folder}/mine.py"
  objects.write(config, GAN.read_bytes())
  run = f"{bucket.folder}/run"
  train_it = ("train", f"--config={config}:debug", "--config.steps=4", f"--workdir={run}")
  assert verb(*train_it)[0] == 0
  status, said, _ = verb(*train_it)
  assert status == 0 and not said  # "is already trained" is for people, on stderr
  sample = ("sample", f"--workdir={run}", "--num=8")
  for name in ("x.npz", "x.png", "x"):
    out = f"{bucket.folder}/out/{name}"
    assert verb(*sample, f"--out={out}")[:2] == (0, f"8 samples -> {out}\n")
    assert verb(*sample, f"--out={out}")[1] == f"8 samples -> {out} (replaced)\n"
  assert verb(*sample, f"--out={tmp_path}/x.npz")[0] == 0
  one, other = (
    np.load(files.local(p)) for p in (f"{bucket.folder}/out/x.npz", f"{tmp_path}/x.npz")
  )
  assert all(np.array_equal(one[k], other[k]) for k in one.files if k != "info")
  objects.write(f"{bucket.folder}/out/x/mine", b"mine")
  status, _, lines = verb(*sample, f"--out={bucket.folder}/out/x")
  assert status == 2 and "holds 1 file that this command does not write, such as mine" in lines[-1]
  objects.write(f"{bucket.folder}/mine.png", b"mine")
  status, _, lines = verb(*sample, f"--out={bucket.folder}/mine.png")
  assert status == 2 and "is none that jaxgen would replace" in lines[-1]
  card = f"{bucket.folder}/card.json"
  status, said, _ = verb("eval", f"--workdir={run}", "--num=64", f"--out={card}")
  assert status == 0 and "modes" in said and b"frechet" in objects.read(card)


@pytest.mark.parametrize(
  "words, line",
  [
    (
      ("sample", "--workdir=gs://bucket/none", "--out=x.png"),
      "there is no folder gs://bucket/none",
    ),
    (("sample", "--workdir=gs://another/w", "--out=x.png"), "there is no folder gs://another/w"),
    (("train", "--config=gs://bucket/none.py", "--workdir=w"), "there is no object gs://bucket/no"),
    (("train", "--config=configs/points_gan.py", "--workdir=az://b/w"), "az://b/w: a path is a"),
    (("study", "--mos=a=b", "--out=gs://bucket/s.jsonl"), "--out takes a path of this machine"),
    (("eval", "--samples=gs://bucket/none.npz", "--data=digits"), "there is no object gs://bucket"),
    (("sample", "--workdir=w", "--out=x.npz", "--low_res=gs://bucket/x.npz"), "is no object gs"),
  ],
)
def test_what_cannot_be_is_one_line(bucket, verb, words, line, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  before = sorted(p.name for p in ROOT.iterdir())
  status, said, lines = verb(*words)
  assert status == 2 and not said and line in lines[-1] and "Traceback" not in str(lines)
  assert sorted(p.name for p in ROOT.iterdir()) == before


def test_data_of_a_bucket_are_those_of_a_folder(bucket, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "data"))
  x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
  for i, image in enumerate(x):
    name = f"{'ab'[i % 2]}/{i}.png"
    pictures.save_png(tmp_path / "images" / name, image)
    pictures.save_png(f"{bucket.folder}/images/{name}", image)
  np.savez(tmp_path / "x.npz", x, np.arange(6) % 2)
  objects.write(f"{bucket.folder}/x.npz", (tmp_path / "x.npz").read_bytes())
  for kind, name in (("folder", "images"), ("npz", "x.npz")):
    here, there = (open_source(f"{kind}:{top}/{name}", size=8) for top in (tmp_path, bucket.folder))
    assert there.name == f"{kind}:{bucket.folder}/{name}" and here.classes == there.classes == 2
    one, other = here.read(np.arange(6)), there.read(np.arange(6))
    assert one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
    assert here.fingerprint == there.fingerprint
  with pytest.raises(UserError, match="prepared data lie in a folder"):
    open_source(f"folder:{tmp_path}/images", size=8, data_dir=bucket.folder)
  pictures.save_png(f"{bucket.folder}/images/a/0.png", 255 - x[0])
  again = open_source(f"folder:{bucket.folder}/images", size=8)
  assert np.array_equal(again.read(np.arange(1))["x"][0], 255 - x[0])


@both
def test_records_of_a_bucket_are_copied_once(bucket, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
  top, there = tmp_path / "set", f"{bucket.folder}/set"
  write_set(top, "array_record", x, np.arange(6) % 2, ["a", "b"], {})
  for name in files.shown_below(top):
    files.write_bytes(files.join(there, name), (top / name).read_bytes())
  for data, how in ((top, {}), (there, {}), (f"{there}/1.0.0", {}), (there, {"size": 4})):
    source = open_source(f"array_record:{data}", **how)
    assert source.class_names == ("a", "b") and source.name == f"array_record:{data}"
    if not how:
      assert np.array_equal(source.arrays()[0], x) and source.arrays()[1].tolist() == [0, 1] * 3
  reads = bucket.answers[200]
  open_source(f"array_record:{there}").read(np.arange(6))
  assert bucket.answers[200] <= reads + 1  # the list of names; nothing is sent again
  write_set(top, "array_record", 255 - x, np.arange(6) % 2, ["a", "b"], {})
  for name in files.shown_below(top):
    files.write_bytes(files.join(there, name), (top / name).read_bytes())
  assert np.array_equal(open_source(f"array_record:{there}").arrays()[0], 255 - x)
  with pytest.raises(UserError, match=r"has the splits train, not test"):
    open_source(f"array_record:{there}", "test")
  with pytest.raises(UserError, match="there is no object .*none"):
    open_source(f"array_record:{bucket.folder}/none")
  objects.write(f"{bucket.folder}/other/x", b"x")
  with pytest.raises(UserError, match="no data of TFDS's in .*other: no dataset_info.json"):
    open_source(f"array_record:{bucket.folder}/other")


@both
def test_who_cannot_reach_the_bucket_may_start_again(bucket, impatient, verb):
  train_it = ("train", f"--config={GAN}:debug", f"--workdir={bucket.folder}")
  with bucket.outage():
    status, _, lines = verb(*train_it)
  assert status == 75 and "the server cannot be reached" in lines[-1]
  bucket.faults.status, bucket.faults.code = 403, "AccessDenied"
  status, _, lines = verb(*train_it)
  assert status == 2 and "denied: give this account the right" in lines[-1]
  on_s3 = bucket.address.startswith("s3")
  bucket.faults.status, bucket.faults.code = 403 if on_s3 else 401, "InvalidAccessKeyId"
  status, _, lines = verb(*train_it)
  assert status == 2 and "no valid credentials" in lines[-1]


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
  words = "--kills 6 --set steps=60 --set checkpoint.every=5 --bucket gs --harm 0.01".split()
  run = subprocess.run(
    [sys.executable, "tests/helpers/kill.py", f"--config={GAN}:debug", *words],
    cwd=ROOT, text=True, capture_output=True, timeout=900,
  )  # fmt: skip
  assert run.returncode == 0, run.stdout + run.stderr
  assert "all the same, bit by bit" in run.stdout
