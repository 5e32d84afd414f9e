"""The step of several processes, timed by all of them together."""

import json

import pod
import pytest


@pytest.mark.slow
def test_processes_time_their_steps_together(tmp_path):
  table = tmp_path / "speed.json"
  words = ["bench", "train", "--config=configs/points_gan.py:debug", f"--json={table}"]
  first, second = pod.run(2, 2, [*words, "--seconds=0.2"], env={"XDG_CACHE_HOME": str(tmp_path)})
  assert (first.status, second.status) == (0, 0), first.stderr + second.stderr
  assert "step" in first.stdout and not second.stdout
  result = json.loads(table.read_text())
  assert result["machine"]["processes"] == 2 and result["machine"]["devices"] == 4
  assert result["fixed"]["images_per_s"] > 0 and result["peak"]["devices"] == 4


CODE = """
import importlib
from jaxgen import cli
from jaxgen.bench import bench

for words in (
  ["sample", "--config=configs/points_vae.py:debug", "--batch=8"],
  ["data", "--data=digits", "--batch=64"],
  ["data", "--config=configs/points_vae.py:debug"],
):
  name = "_".join(w.split("/")[-1].split("=")[-1] for w in words[:2])
  bench.main(cli.parse(bench, ["bench", *words, "--seconds=0.2", f"--json={out}/{{name}}.json"]))
processes.shutdown()
"""


def test_what_else_is_measured_is_of_all_processes(tmp_path):
  done = pod.run(2, 1, CODE.format(out=tmp_path), timeout=200)
  assert [d.status for d in done] == [0, 0], done
  assert not done[1].stdout and done[0].stdout.count("2 x cpu on 2 hosts") == 3
  sample, fed = (
    json.loads((tmp_path / f"{name}_points_vae.py:debug.json").read_text())
    for name in ("sample", "data")
  )
  assert sample["batch"] == 8 and sample["evaluations"] == 1 and sample["samples_per_s"] > 0
  assert fed["needed_per_s"] > 0
  rows = json.loads((tmp_path / "data_digits.json").read_text())["rows"]
  assert all(row["examples_per_s"] > 0 for row in rows.values())
