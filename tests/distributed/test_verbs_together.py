"""Verbs that compare models, by two processes: the numbers of one."""

import json

import pod
import pytest
from kill_choice import timeless

# All in the same processes: joining and compiling are what takes time.
CODE = """
import importlib
from jaxgen import cli

def call(verb, *words):
  module = importlib.import_module(f"jaxgen.{{cli.VERBS[verb][0]}}")
  module.main(cli.parse(module, [verb, *words]))

vae, gan = "configs/points_vae.py:debug", "configs/points_gan.py:debug"
{calls}
processes.shutdown()
"""
COMPARE = """
call("compare", f"--configs={{vae}},{{gan}}", "--num=64", "--out={out}/compare")
call(
  "sweep", "--workdir={out}/compare/points_vae", "--over=temperature=0.5,1", "--num=64",
  "--out={out}/sweep",
)
call(
  "evaluate", "--workdir={out}/compare/points_gan", "--num=64", "--judge={out}/judge",
  "--out={out}/scores.json",
)
"""
CHOOSE = """
call(
  "choose", "--data=points:grid25", f"--contenders={{vae}},{{gan}}", "--budget=2kimg", "--num=64",
  "--out={out}/choice",
)
call(
  "trilemma", "--workdirs={out}/choice/points_vae,{out}/choice/points_gan", "--num=64",
  "--out={out}/trilemma",
)
"""
HERE = ("machine", "created", "versions")  # of the machine, not of the models


def run_both(tmp_path_factory, calls):
  """(folder by two processes with a device each, by one with two; what was printed)."""
  folders, printed = [], []
  for processes, devices in ((2, 1), (1, 2)):
    out = tmp_path_factory.mktemp(f"by{processes}")
    code = CODE.format(calls=calls.format(out=out))
    done = pod.run(processes, devices, code, timeout=900)
    assert [d.status for d in done] == [0] * processes, done
    folders.append(out)
    printed.append([d.stdout for d in done])
  return *folders, printed


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
  return run_both(tmp_path_factory, COMPARE)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
  return run_both(tmp_path_factory, CHOOSE)


def numbers(folder, name):
  """A report, without times and places."""
  text = (folder / name).read_text().replace(str(folder), "")
  return timeless({k: v for k, v in json.loads(text).items() if k not in HERE})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compare/report.json", "sweep/sweep.json", "scores.json"])
def test_two_processes_find_the_numbers_of_one(compared, name):
  together, alone, _ = compared
  assert numbers(together, name) == numbers(alone, name)


@pytest.mark.parametrize("name", ["sweep/sweep.md", "compare/points_gan.png", "sweep/sweep.png"])
def test_what_is_shown_is_the_same_to_the_byte(compared, name):
  together, alone, _ = compared
  assert (together / name).read_bytes() == (alone / name).read_bytes()


def test_the_first_process_alone_reports(compared):
  _, _, ((first, second), (alone,)) = compared
  assert second == "" and "real test data" in alone
  assert first == alone


@pytest.mark.slow
def test_two_processes_choose_as_one_does(chosen):
  together, alone, _ = chosen
  assert numbers(together, "choice/choice.json") == numbers(alone, "choice/choice.json")


def scored(rows):
  """Which rows there are, and what does not depend on a clock."""
  fields = ("family", "nfe", "params", "scores", "spread")
  told = lambda row: {k: v for k, v in row["told"].items() if k != "config"}
  return [told(row) | {k: row[k] for k in fields} for row in rows]


@pytest.mark.slow
def test_a_trilemma_of_two_processes_has_the_scores_of_one(chosen):
  """Times are their own; so is who is on the front, and how often trainings were saved."""
  one, two = (scored(numbers(f, "trilemma/trilemma.json")["rows"]) for f in chosen[:2])
  assert len(one) > 2 and one == two


def test_a_failure_of_one_ends_all_with_one_line(tmp_path):
  words = ["compare", "--configs=configs/points_vae.py:debug", "--out={i}", "--num=7"]
  done = pod.run(2, 1, words, timeout=100)
  assert [d.status for d in done] == [2, 2], done
  assert {d.stderr.strip() for d in done} == {"jaxgen: --num=7: want at least 50"}


@pytest.mark.parametrize("verb", ["edit", "likelihood"])
def test_verbs_for_one_process_say_so(verb):
  done = pod.run(2, 1, [verb], timeout=100)
  assert [d.status for d in done] == [2, 2]
  for d in done:
    assert d.stderr.count("\n") == 1 and "this is done by one process" in d.stderr
