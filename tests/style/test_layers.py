"""Who may import whom: read from the source, for every file."""

import collections
import pathlib
import sys

import rooms
from rooms import FLOORS, ROOT, floor_of, imports, room

FILES = rooms.files()
CONFIGS = sorted(p.relative_to(ROOT) for p in (ROOT / "configs").glob("*.py"))
STANDARD = sys.stdlib_module_names
JAX = {"jax", "numpy"}
# Room -> what it may import of ours beside itself, and of others.
RULES = {
  "models": ({"core", "diffusion", "adversarial", "keys", "errors"}, JAX | {"flax", "optax"}),
  "nets": (set(), JAX | {"flax"}),
  "diffusion": ({"keys"}, JAX),
  "adversarial": ({"keys"}, JAX),
  "data": (
    {"files", "errors"},
    {"numpy", "grain", "tensorflow_datasets", "PIL", "sklearn", "absl"},
  ),  # whose flags grain's worker processes want
  "interop": ({"files", "errors"}, {"numpy", "ml_dtypes", "safetensors"}),
  "metrics": ({"nets.inception"}, JAX | {"scipy"}),
  "evaluation": (
    None,
    JAX
    | {"PIL", "flax", "scipy", "absl", "ml_collections", "tensorboardX.proto", "google.protobuf"},
  ),
  "study": (None, {"numpy", "PIL", "absl"}),
  "core": ({"keys"}, JAX | {"flax.struct", "optax"}),
  "keys": (set(), {"jax"}),
  "ema": ({"errors"}, JAX),
  "optim": ({"errors"}, {"optax"}),
  "config": ({"errors"}, {"ml_collections", "numpy"}),
  "errors": (set(), set()),
  "files": ({"errors"}, {"numpy"}),
}
NOWHERE = {
  "tensorflow",
  "torch",
  "pickle",
  "cPickle",
  "dill",
  "cloudpickle",
  "marshal",
  "shelve",
  "joblib",
  "keras",
}


def allowed(name, whitelist):
  return any(f"{name}.".startswith(f"{w}.") for w in whitelist)


def test_nothing_imports_upwards():
  wrong = [
    f"{path} (floor {floor_of(room(path))}) imports jaxgen.{name} (floor {floor_of(name)})"
    for path in FILES
    for name in rooms.ours(path)
    if name.partition(".")[0] != room(path) and floor_of(name) >= floor_of(room(path))
  ]
  assert not wrong


def test_rooms_import_what_their_rule_allows():
  wrong = []
  for path in FILES:
    names = imports(path)
    wrong += [(str(path), n) for n in names if allowed(n, NOWHERE)]
    ours, others = RULES.get(room(path), (None, None))
    if ours is not None:
      wrong += [(str(path), n) for n in rooms.ours(path) if not allowed(n, ours | {room(path)})]
    if others is not None:
      wrong += [
        (str(path), n)
        for n in names
        if not n.startswith("jaxgen.") and not allowed(n, others | STANDARD)
      ]
  assert not wrong


def test_of_all_verbs_train_alone_is_imported():
  from jaxgen.cli import VERBS

  verbs = {module for module, _ in VERBS.values()} - {"train", "compare.compare"}
  wrong = [
    (str(path), name)
    for path in FILES
    for name in rooms.ours(path)
    if name in verbs and room(path) not in ("cli", "__main__")
  ]
  assert not wrong


def test_no_name_stands_twice():
  names = collections.Counter(p.stem for p in FILES if p.stem != "__init__")
  assert [n for n, count in names.items() if count > 1] == []


def test_configs_import_their_base_alone():
  for path in CONFIGS:
    for name in imports(path):
      assert name.startswith("configs._") or (
        name == "ml_collections.ConfigDict" and path.stem == "_base"
      ), (path, name)


def test_data_never_import_jax():
  for path in (p for p in FILES if room(p) == "data"):
    for name in imports(path):
      assert not allowed(name, {"jax", "jaxlib", "flax", "optax"}), path


def test_every_room_has_a_floor():
  assert {room(p) for p in FILES} <= {r for floor in FLOORS for r in floor}


def test_the_picture_of_the_rooms_is_up_to_date():
  assert rooms.picture() in (ROOT / "README.md").read_text(), "run tests/helpers/rooms.py"


def test_the_rule_notices():
  # The reader itself: what each kind of statement is taken for.
  probe = pathlib.Path(__file__)
  assert {"collections", "pathlib", "sys", "rooms", "rooms.room"} <= imports(probe)
  assert allowed("jax.numpy", JAX) and not allowed("jaxlib", JAX)
  assert not allowed("flax.linen.Module", RULES["core"][1])
  assert allowed("flax.struct", RULES["core"][1])
  assert floor_of("core") < floor_of("models.gan") < floor_of("train")
