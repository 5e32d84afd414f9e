"""Who may import whom: read from the source, for every file."""

import pathlib
import sys

import rooms
from rooms import FLOORS, ROOT, floor_of, imports, room

from jaxgen.cli import VERBS

FILES = rooms.files()
JAX = {"jax", "numpy"}
# Room -> what it may import of ours beside itself, and of others; None: anything.
RULES = {
  "models": (
    {"core", "diffusion", "adversarial", "metrics.perceptual_distance", "keys", "errors"},
    JAX | {"flax", "optax"},
  ),
  "nets": (set(), JAX | {"flax"}),
  "diffusion": ({"keys"}, JAX),
  "adversarial": ({"keys"}, JAX),
  "data": (
    {"files", "errors", "audio.bands"},
    {"numpy", "grain", "tensorflow_datasets", "PIL", "sklearn", "absl"},
  ),  # absl's flags are what grain's worker processes want
  "audio": ({"files", "errors"}, JAX),
  "interop": ({"files", "errors"}, {"numpy", "ml_dtypes", "safetensors"}),
  "metrics": ({"nets.inception"}, JAX | {"scipy", "sklearn"}),
  "evaluation": (
    None,
    JAX
    | {"PIL", "flax", "scipy", "absl", "ml_collections", "tensorboardX.proto", "google.protobuf"},
  ),
  "study": (None, {"numpy", "PIL", "absl"}),
  "core": ({"keys"}, JAX | {"flax.struct", "optax"}),
  "keys": (set(), {"jax"}),
  "compiler": (set(), {"jax"}),
  "ema": ({"errors"}, JAX),
  "optim": ({"errors"}, JAX | {"optax"}),
  "config": ({"errors", "files"}, {"ml_collections", "numpy"}),
  "errors": (set(), set()),
  "files": ({"errors", "bucket"}, {"numpy"}),
  "bucket": ({"errors"}, {"etils", "tensorstore"}),
}
NOWHERE = set(
  "tensorflow torch keras pickle cPickle dill cloudpickle marshal shelve joblib".split()
)


def within(name, packages):
  return any(f"{name}.".startswith(f"{p}.") for p in packages)


def test_nothing_imports_upwards():
  assert {room(p) for p in FILES} <= {r for floor in FLOORS for r in floor}
  assert not [
    f"{path} (floor {floor_of(room(path))}) imports jaxgen.{name} (floor {floor_of(name)})"
    for path in FILES
    for name in rooms.ours(path)
    if name.partition(".")[0] != room(path) and floor_of(name) >= floor_of(room(path))
  ]


def test_rooms_import_what_their_rule_allows():
  wrong = []
  for path in FILES:
    ours, others = RULES.get(room(path), (None, None))
    wrong += [(path, n) for n in imports(path) if within(n, NOWHERE)]
    if ours is not None:
      wrong += [(path, n) for n in rooms.ours(path) if not within(n, ours | {room(path)})]
    if others is not None:
      others = others | sys.stdlib_module_names | {"jaxgen"}
      wrong += [(path, n) for n in imports(path) if not within(n, others)]
  assert not wrong


def test_of_all_verbs_train_alone_is_imported():
  verbs = {module for module, _ in VERBS.values()} - {"train"}
  assert not [
    (path, name)
    for path in FILES
    if room(path) not in ("cli", "__main__")
    for name in rooms.ours(path)
    if name in verbs
  ]


def test_configs_import_their_base_alone():
  configs = [p.relative_to(ROOT) for p in (ROOT / "configs").glob("*.py")]
  assert not [
    (path, name)
    for path in configs
    for name in imports(path)
    if not name.startswith("configs._")
    and (path.stem, name) != ("_base", "ml_collections.ConfigDict")
  ]


def test_nobody_imports_what_jax_keeps_to_itself():
  places = [
    *FILES,
    *(p.relative_to(ROOT) for d in ("configs", "tests") for p in (ROOT / d).rglob("*.py")),
  ]
  assert [str(p) for p in places for n in imports(p) if within(n, {"jax._src"})] == []


def test_the_reader_of_imports_notices():
  assert {"pathlib", "sys", "rooms", "rooms.room", "jaxgen.cli.VERBS"} <= imports(
    pathlib.Path(__file__)
  )
  assert within("jax.numpy", JAX) and not within("jaxlib", JAX)
  assert not within("flax.linen.Module", RULES["core"][1])
  assert within("flax.struct", RULES["core"][1])
  assert floor_of("core") < floor_of("models.gan") < floor_of("train")
