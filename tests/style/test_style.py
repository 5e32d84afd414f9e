"""Public things say what they take, what they give and what they are for."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(p.relative_to(ROOT) for p in (ROOT / "jaxgen").rglob("*.py"))
# Here every name in a public signature is annotated.
STRICT = (
  "diffusion",
  "adversarial",
  "metrics",
  "models",
  "nets",
  "core.py",
  "ema.py",
  "optim.py",
  "keys.py",
  "config.py",
)
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
  static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
  return args[1:] if owner and not static else args


def test_public_things_have_docstrings():
  lacking = []
  for path in FILES:
    tree = ast.parse((ROOT / path).read_text())
    strict = path.parts[1] in STRICT
    lacking += [
      (str(path), n.name)
      for n, owner in public(tree)
      if not (ast.get_docstring(n) or "").strip()
      and n.name != "setup"  # linen's
      and (strict or not owner)
    ]
    if tree.body and not ast.get_docstring(tree):
      lacking.append((str(path), "the file"))
  assert not lacking


def test_public_signatures_are_annotated():
  lacking = []
  for path in (p for p in FILES if p.parts[1] in STRICT):
    for node, owner in public(ast.parse((ROOT / path).read_text())):
      if not isinstance(node, FUNCTION) or node.name == "setup":
        continue
      lacking += [
        f"{path}: {node.name}({a.arg})"
        for a in parameters(node, owner)
        # Any object with the two members that process.py describes.
        if a.annotation is None and a.arg != "process"
      ]
      if node.returns is None:
        lacking.append(f"{path}: {node.name} -> ?")
  assert not lacking


def test_a_wheel_holds_every_package():
  import tomllib

  listed = tomllib.loads((ROOT / "pyproject.toml").read_text())
  listed = set(listed["tool"]["setuptools"]["packages"])
  there = {
    ".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "jaxgen").rglob("__init__.py")
  }
  assert listed == there | {"jaxgen.configs"}
