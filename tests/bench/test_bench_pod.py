"""The step of several processes, timed by all of them together."""

import json

import pod


def test_processes_time_their_steps_together(tmp_path):
  table = tmp_path / "speed.json"
  words = ["bench", "train", "--config=configs/points_gan.py:debug", f"--json={table}"]
  first, second = pod.run(2, 2, [*words, "--seconds=0.2"], env={"XDG_CACHE_HOME": str(tmp_path)})
  assert (first.status, second.status) == (0, 0), first.stderr + second.stderr
  assert "step" in first.stdout and not second.stdout
  result = json.loads(table.read_text())
  assert result["machine"]["processes"] == 2 and result["machine"]["devices"] == 4
  assert result["fixed"]["images_per_s"] > 0 and result["peak"]["devices"] == 4


def test_what_one_process_measures_is_refused_by_several(tmp_path):
  done = pod.run(2, 1, ["bench", "data", "--data=digits"], env={"XDG_CACHE_HOME": str(tmp_path)})
  assert {d.status for d in done} == {2}
  assert "this is done by one process" in done[0].stderr
