"""Rules that ruff has no name for, each kept over all files."""

import ast
import collections
import tomllib

import marks
import rooms
from rooms import ROOT, room

# Rooms whose public functions say what they take and return.
TYPED = """
  adversarial checkpoint config convert core diffusion distributed ema errors experiment files
  forms keys metrics models nets optim sharding
""".split()


def signatures(path):
  """(name, arguments that have no type) of public functions and methods."""
  tree = ast.parse((ROOT / path).read_text())
  classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
  for node in [n for part in (tree, *classes) for n in part.body]:
    if not isinstance(node, ast.FunctionDef) or node.name[0] == "_" or node.name == "setup":
      continue
    args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    # A process is any object with the two members that process.py describes.
    untyped = [a.arg for a in args if not (a.annotation or a.arg in ("self", "cls", "process"))]
    yield node.name, untyped + ["return"] * (node.returns is None)


def test_public_functions_are_typed():
  assert not [
    f"{path}: {name}({', '.join(untyped)})"
    for path in rooms.files()
    if room(path) in TYPED
    for name, untyped in signatures(path)
    if untyped
  ]


def test_no_name_stands_twice():
  names = collections.Counter(p.stem for p in rooms.files() if p.stem != "__init__")
  assert not [n for n, count in names.items() if count > 1]


def test_a_wheel_holds_every_package():
  packages = {".".join(p.parts[:-1]) for p in rooms.files() if p.stem == "__init__"}
  listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
  assert set(listed) == packages | {"jaxgen.configs"}


def test_every_test_file_has_one_mark():
  files = [file for files in marks.FILES.values() for file in files.split()]
  assert sorted(marks.MARK) == sorted(marks.TESTS.rglob("test_*.py"))
  assert len(files) == len(marks.MARK)
