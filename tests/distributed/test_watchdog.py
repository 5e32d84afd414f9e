"""Who is to blame, by what processes tell of themselves."""

from jaxgen.distributed.agreement import differences, flat
from jaxgen.distributed.watchdog import Beat, Silence, judge

FINE = Beat(7, "step", 0.2, 45.0)


def test_all_is_well():
  compiling = Beat(0, "compile", 900.0, 1800.0)
  beats = {0: FINE, 1: compiling, 2: Beat()}
  assert judge(beats, {0: 0.1, 1: 3.0, 2: 29.0}, 30.0) is None


def test_the_dead_are_named():
  beats = {0: FINE, 1: Beat(9, "data", 1.0, 45.0), 2: FINE}
  assert judge(beats, {0: 0, 1: 31.0, 2: 1}, 30.0) == (
    "process 1 died: no sign of life for 31 s, last at step 9 (data)"
  )
  # If others already suffer, it takes less to be sure.
  beats[0] = Beat(8, "trouble", 0.1, 45.0, "connection reset")
  assert judge(beats, {0: 0, 1: 4.0, 2: 1}, 30.0) is None
  assert judge(beats, {0: 0, 1: 6.0, 2: 1}, 30.0).startswith("process 1 died")


def test_who_was_held_up_does_not_blame_others():
  now = [0.0]
  silence = Silence(1.0, lambda: now[0])
  for pause in (1.0, 1.0, 60.0, 1.0):
    now[0] += pause
    heard = silence.seconds()
  assert heard == 6.0


def test_a_trouble_of_its_own():
  beats = {0: FINE, 1: Beat(8, "trouble", 11.0, 45.0, "out of memory")}
  assert judge(beats, {0: 0, 1: 1}, 30.0) == ("process 1 cannot go on: out of memory")


def test_who_is_behind_is_to_blame():
  """All wait for one, and so are late as well."""
  beats = {i: Beat(15, "step", 46.0, 45.0) for i in range(4)}
  beats[2] = Beat(7, "data", 47.0, 45.0)
  silent = dict.fromkeys(beats, 0.0)
  assert judge(beats, silent, 30.0) == ("process 2 hangs: at step 7 (data) for 47 s")
  # In the same step it is whose turn comes first.
  beats |= {1: Beat(7, "step", 90.0, 45.0), 2: Beat(7, "data", 44.0, 45.0)}
  assert judge(beats, silent, 30.0) is None  # a moment, still
  beats[2] = Beat(7, "data", 46.0, 45.0)
  assert judge(beats, silent, 30.0).startswith("process 2 hangs")
  beats[2] = Beat(7, "pictures", 47.0, 1800.0)
  beats[1] = Beat(8, "step", 90.0, 45.0)  # waits for it in the next step
  assert judge(beats, silent, 30.0) is None
  beats = dict.fromkeys(beats, Beat(9, "step", 50.0, 45.0))
  assert judge(beats, silent, 30.0) == ("processes 0, 1, 2, 3 hang: at step 9 (step) for 50 s")


def test_differences_are_named():
  config = {"batch": 64, "optim": {"gen": {"lr": 1e-3}}}
  same = flat({"config": config, "code": {"train.py": "aa"}})
  assert differences({0: same, 1: dict(same)}) == ""
  other = same | {"config.optim.gen.lr": 2e-3}
  assert differences({0: same, 1: same, 2: other, 3: other}) == (
    "processes differ: processes 2, 3 from process 0 in config.optim.gen.lr "
    "is 0.002 there and 0.001 here"
  )
  more = {k: v for k, v in same.items() if not k.startswith("code")}
  assert "code.train.py is None there and 'aa' here" in (differences({0: same, 1: more}))
