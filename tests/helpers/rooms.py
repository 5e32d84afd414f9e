"""The rooms of the house: which floor they are on, and who imports whom.

Run as a script it puts the picture of the rooms into the README:

  python tests/helpers/rooms.py
"""

import ast
import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
# From the ground up; a room imports from lower floors alone.
FLOORS = (
  ("errors",),
  ("files", "keys", "forms"),
  ("core", "optim", "ema", "diffusion", "adversarial", "nets", "data", "metrics", "interop"),
  ("models", "config", "sharding", "distributed"),
  ("checkpoint", "monitor", "cli"),
  ("sampling", "experiment"),
  ("train", "sample", "convert"),
  ("evaluation", "bench"),
  ("evaluate", "compare", "plan", "study", "__init__", "__main__"),
)
MARKS = "<!-- rooms -->", "<!-- end of rooms -->"


def files() -> list[pathlib.Path]:
  """All files of the package, relative to the checkout."""
  return sorted(p.relative_to(ROOT) for p in (ROOT / "jaxgen").rglob("*.py"))


def room(path: pathlib.Path) -> str:
  """jaxgen/nets/unet.py -> nets; jaxgen/core.py -> core."""
  return path.parts[1].removesuffix(".py")


def floor_of(name: str) -> int:
  """The floor of "nets.unet" or "core"."""
  return next(i for i, floor in enumerate(FLOORS) if name.partition(".")[0] in floor)


@functools.cache
def modules() -> set[str]:
  """Modules and rooms of the package: "core", "nets", "nets.unet"."""
  return {".".join(p.with_suffix("").parts[1:]).removesuffix(".__init__") for p in files()}


@functools.cache
def imports(path: pathlib.Path) -> set[str]:
  """Dotted names that a file imports, in functions too."""
  names = set()
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    if isinstance(node, ast.Import):
      names |= {a.name for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}:{node.lineno}: relative import"
      # `from jaxgen.diffusion import samplers` imports a module.
      names |= {f"{node.module}.{a.name}" for a in node.names}
  return names


@functools.cache
def ours(path: pathlib.Path) -> set[str]:
  """Modules of this package that a file imports: "nets.unet", "core"."""
  names = {n.removeprefix("jaxgen.") for n in imports(path) if n.startswith("jaxgen.")}
  # `from jaxgen.nets.unet import UNet` names a member of a module.
  return {n if n in modules() else n.rpartition(".")[0] for n in names} - {""}


def picture() -> str:
  """Mermaid: rooms on their floors, an arrow to each room that one imports.

  Left out are the ground, which all import, and what follows from other arrows.
  """
  ground = {r for floor in FLOORS[:2] for r in floor}
  below = {r: set() for floor in FLOORS[2:] for r in floor if r[0] != "_"}
  for path in files():
    if room(path) in below:
      below[room(path)] |= {n.partition(".")[0] for n in ours(path)} - ground - {room(path)}
  lines = ["```mermaid", "flowchart TD"]
  for i, floor in reversed(list(enumerate(FLOORS[2:], 2))):
    shown = [r for r in floor if r in below]
    lines.append(f'  subgraph f{i} [" "]\n    ' + "; ".join(shown) + "\n  end")

  def reach(r, reached):
    for s in below[r]:
      if s not in reached:
        reached.add(s)
        reach(s, reached)
    return reached

  for r in sorted(below, key=lambda r: (-floor_of(r), r)):
    indirect = set().union(*(reach(s, set()) for s in below[r])) if below[r] else set()
    if direct := sorted(below[r] - indirect):
      lines.append(f"  {r} --> " + " & ".join(direct))
  return "\n".join([*lines, "```"])


if __name__ == "__main__":
  readme = ROOT / "README.md"
  start, end = map(re.escape, MARKS)
  text = re.sub(
    f"({start}).*({end})", lambda m: f"{m[1]}\n{picture()}\n{m[2]}", readme.read_text(), flags=re.S
  )
  readme.write_text(text)
