"""Public things say what they take, what they give and what they are for."""
import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(p.relative_to(ROOT) for p in (ROOT / "jaxgen").rglob("*.py"))
# Here every name in a public signature is annotated, and every file short.
STRICT = ("diffusion", "adversarial", "metrics", "models", "nets", "core.py",
          "ema.py", "optim.py", "build.py")
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def public(tree):
  """(node, owner) of public functions, classes and methods."""
  for node in tree.body:
    if not isinstance(node, FUNCTION | ast.ClassDef) or node.name[0] == "_":
      continue
    yield node, None
    for child in node.body if isinstance(node, ast.ClassDef) else ():
      if isinstance(child, FUNCTION) and child.name[0] != "_":
        yield child, node


def parameters(node, owner):
  args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
  static = any(getattr(d, "id", "") == "staticmethod"
               for d in node.decorator_list)
  return args[1:] if owner and not static else args


@pytest.mark.parametrize("path", FILES, ids=str)
def test_public_things_have_docstrings(path):
  tree = ast.parse((ROOT / path).read_text())
  strict = path.parts[1] in STRICT
  lacking = [n.name for n, owner in public(tree)
             if not (ast.get_docstring(n) or "").strip()
             and n.name != "setup"  # linen's
             and (strict or not owner)]
  assert not lacking
  assert ast.get_docstring(tree) or not tree.body


@pytest.mark.parametrize("path", [
    p for p in FILES if p.parts[1] in STRICT], ids=str)
def test_public_signatures_are_annotated(path):
  lacking = []
  for node, owner in public(ast.parse((ROOT / path).read_text())):
    if not isinstance(node, FUNCTION) or node.name == "setup":
      continue
    lacking += [f"{node.name}({a.arg})" for a in parameters(node, owner)
                # Any object with the two members that process.py describes.
                if a.annotation is None and a.arg != "process"]
    if node.returns is None:
      lacking.append(f"{node.name} -> ?")
  assert not lacking


@pytest.mark.parametrize("path", [
    p for p in FILES if p.parts[1] in STRICT], ids=str)
def test_files_and_functions_are_short(path):
  text = (ROOT / path).read_text()
  assert len(text.splitlines()) < 400
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, FUNCTION):
      assert node.end_lineno - node.lineno < 50, node.name


def test_a_wheel_holds_every_package():
  import tomllib
  listed = tomllib.loads((ROOT / "pyproject.toml").read_text())
  listed = set(listed["tool"]["setuptools"]["packages"])
  there = {".".join(p.parent.relative_to(ROOT).parts)
           for p in (ROOT / "jaxgen").rglob("__init__.py")}
  assert listed == there | {"jaxgen.configs"}
