"""Harm to one of several processes, and all go on to the same bits."""

import subprocess
import sys

import pytest
from verbs import ROOT


@pytest.mark.slow
def test_a_storm_over_two_processes(tmp_path):
  run = subprocess.run(
    [
      sys.executable,
      "tests/helpers/storm.py",
      "--config=configs/points_gan.py:debug",
      "--kills=3",
      "--seed=4",
      "--set=steps=30",
      "--set=checkpoint.every=5",
      "--set=log.pictures=0",
      f"--folder={tmp_path}",
    ],
    cwd=ROOT,
    text=True,
    capture_output=True,
    timeout=900,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  assert "all the same, bit by bit" in run.stdout
