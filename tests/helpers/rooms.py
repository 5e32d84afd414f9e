"""The rooms of the house: which floor they are on, and who imports whom.

Run as a script it draws the picture in the README anew:

  python tests/helpers/rooms.py
"""

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
# From the ground up; a room imports from lower floors alone.
FLOORS = (
  ("errors",),
  ("bucket",),
  ("files", "keys", "compiler"),
  ("forms",),
  ("audio",),
  (
    "core",
    "optim",
    "ema",
    "audio",
    "diffusion",
    "adversarial",
    "nets",
    "data",
    "metrics",
    "interop",
  ),
  ("models", "config", "sharding", "distributed"),
  ("checkpoint", "monitor", "cli"),
  ("sampling", "experiment", "report"),
  ("train", "sample", "convert"),
  ("evaluation",),
  ("bench",),
  ("evaluate", "compare", "plan", "study", "tasks", "__init__", "__main__"),
)
PICTURE = ROOT / ".github" / "rooms.svg"
WIDTH = 860
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">
<style>
  svg {{ background: #fbfaf7; font: 14px Verdana, "DejaVu Sans", sans-serif }}
  rect {{ fill: #ffffff; stroke: #8b8577 }}
  text {{ text-anchor: middle; fill: #1f2328 }}
  path {{ fill: none; stroke: #3b6ea8; stroke-opacity: 0.6; marker-end: url(#tip) }}
</style>
<marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<polygon points="0,1 8,4 0,7" fill="#3b6ea8"/></marker>
{lines}
{boxes}
</svg>
"""


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


def arrows() -> dict[str, list[str]]:
  """Room -> rooms that it imports, but for what follows from other arrows.

  Left out is the ground, which all import.
  """
  ground = {r for floor in FLOORS[:2] for r in floor}
  below = {r: set() for floor in FLOORS[2:] for r in floor if r[0] != "_"}
  for path in files():
    if room(path) in below:
      below[room(path)] |= {n.partition(".")[0] for n in ours(path)} - ground - {room(path)}

  @functools.cache
  def reach(r):
    return below[r].union(*map(reach, below[r]))

  return {r: sorted(below[r].difference(*map(reach, below[r]))) for r in below}


def picture() -> str:
  """SVG: rooms on their floors, an arrow to each room that one imports."""
  edges, place, boxes, lines = arrows(), {}, [], []

  def center(r):  # of those who import it, so that arrows cross less
    above = [place[s][0] for s in place if r in edges[s]]
    return sum(above) / len(above) if above else WIDTH / 2

  for i, floor in enumerate(reversed(FLOORS[2:])):
    shown = sorted((r for r in floor if r in edges), key=center)
    widths = [22 + 8 * len(r) for r in shown]
    gap = (WIDTH - sum(widths)) / (len(shown) + 1)
    left, y = gap, 30 + 78 * i
    for r, width in zip(shown, widths, strict=True):
      place[r] = x, y = round(left + width / 2), y
      boxes.append(
        f'<rect x="{x - width // 2}" y="{y - 14}" width="{width}" height="28" rx="6"/>'
        f'<text x="{x}" y="{y + 5}">{r}</text>'
      )
      left += width + gap
  for r, targets in edges.items():
    x0, y0 = place[r][0], place[r][1] + 14
    for x, y in ((place[t][0], place[t][1] - 19) for t in targets):
      bend = max(24, (y - y0) // 3)
      lines.append(f'<path d="M{x0} {y0}C{x0} {y0 + bend} {x} {y - bend} {x} {y}"/>')
  height = 30 + max(y for _, y in place.values())
  return SVG.format(width=WIDTH, height=height, lines="\n".join(lines), boxes="\n".join(boxes))


if __name__ == "__main__":
  PICTURE.write_text(picture())
