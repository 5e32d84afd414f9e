"""Verbs as tests call them: in this process, or in one of their own."""

import os
import pathlib
import subprocess
import sys

import pytest
import xla

from jaxgen import cli

ROOT = pathlib.Path(__file__).parents[2]
POINTS = "--config=configs/points_gan.py:debug"


def call(capsys, monkeypatch, *argv):
  """Runs a verb here -> status, what it printed, lines on stderr."""

  def leave(status):
    raise SystemExit(status)

  monkeypatch.setattr(os, "_exit", leave)
  capsys.readouterr()
  with pytest.raises(SystemExit) as end:
    cli.main(["jaxgen", *map(str, argv)])
  printed = capsys.readouterr()
  return end.value.code, printed.out, printed.err.splitlines()


def start(*argv, devices=1, **env):
  """The console command, in a process of its own; None unsets a variable."""
  env = os.environ | {"XLA_FLAGS": xla.devices(devices)} | env
  return subprocess.Popen(
    [sys.executable, "-m", "jaxgen", *map(str, argv)],
    cwd=ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env={k: v for k, v in env.items() if v is not None},
  )


def finish(process):
  """-> status, what it printed, lines on stderr."""
  try:
    out, err = process.communicate(timeout=120)
  except subprocess.TimeoutExpired:
    process.kill()
    pytest.fail(f"hangs: {process.communicate()}")
  return process.returncode, out, err.splitlines()


def tree(folder):
  """{path: bytes} of all files, and None for folders."""
  return {
    p.relative_to(folder): p.read_bytes() if p.is_file() else None
    for p in sorted(pathlib.Path(folder).rglob("*"))
  }
