"""Who may import whom: read from the source, for every file."""
import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(p.relative_to(ROOT) for p in (ROOT / "jaxgen").rglob("*.py"))
CONFIGS = sorted(p.relative_to(ROOT) for p in (ROOT / "configs").glob("*.py"))

# Room -> what it may import of ours, and of others.
STANDARD = sys.stdlib_module_names
JAX = {"jax", "numpy"}
RULES = {
    "models": ({"models", "core", "diffusion", "adversarial", "errors"},
               JAX | {"flax", "optax"}),
    "nets": ({"nets"}, JAX | {"flax"}),
    "diffusion": ({"diffusion"}, JAX),
    "adversarial": ({"adversarial"}, JAX),
    "data": ({"data", "files", "errors"},
             {"numpy", "grain", "tensorflow_datasets", "PIL", "sklearn",
              "absl"}),  # whose flags grain's worker processes want
    "interop": ({"interop", "files", "errors"},
                {"numpy", "ml_dtypes", "safetensors"}),
    "metrics": ({"metrics", "nets.inception"}, JAX | {"scipy"}),
    "evaluation": ({"evaluation", "metrics", "nets", "interop", "data",
                    "sampler", "core", "sharding", "fingerprint", "pictures",
                    "progress", "files", "build", "log", "averaged",
                    "stored", "errors"},
                   JAX | {"PIL", "flax", "scipy"}),
    "study_page": ({"study_page", "report", "data", "stored", "errors"},
                   {"numpy", "PIL"}),
    "core": (set(), JAX | {"flax.struct", "optax"}),
    "ema": ({"errors"}, JAX),
    "optim": ({"errors"}, {"optax"}),
    "build": ({"arguments", "errors"}, {"ml_collections"}),
    "arguments": ({"errors"}, set()),
    "errors": (set(), set()),
    "launchers": ({"errors"}, set()),
    "guard": ({"errors"}, set()),
    "processes": ({"guard", "launchers", "errors"}, {"jax"}),
    "goodput": ({"guard", "progress"}, set()),
}
NOWHERE = {"tensorflow", "torch", "pickle", "cPickle", "dill", "cloudpickle",
           "marshal", "shelve", "joblib", "keras"}


def imports(path, top=False):
  """Dotted names that a file imports; `top`: outside of functions alone."""
  tree = ast.parse((ROOT / path).read_text())
  names, nodes = set(), [tree]
  while nodes:
    node = nodes.pop()
    if isinstance(node, ast.Import):
      names |= {a.name for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}:{node.lineno}: relative import"
      # `from jaxgen.diffusion import samplers` imports a module.
      names |= {f"{node.module}.{a.name}" for a in node.names}
    if not (top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
      nodes += ast.iter_child_nodes(node)
  return names


def allowed(name, whitelist):
  return any(f"{name}.".startswith(f"{w}.") for w in whitelist)


def room(path):
  return path.parts[1].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_stay_within_the_rule(path):
  names = imports(path)
  for name in names:
    assert not allowed(name, NOWHERE), f"{path} imports {name}"
  if room(path) not in RULES:
    return
  ours, others = RULES[room(path)]
  for name in names:
    if name.startswith("jaxgen."):
      assert allowed(name.removeprefix("jaxgen."), ours), (
          f"{path} imports {name}")
    else:
      assert allowed(name, others | STANDARD), f"{path} imports {name}"


def test_what_verbs_share_imports_no_verb():
  # (`sample` is not among them: it is where Python's `load` lives too.)
  verbs = {"train", "evaluate", "compare", "bench", "demo", "prepare", "cli",
           "sweep", "likelihood", "import", "export", "study", "modes", "plan"}
  # Judges are trained: they stand between `train` and those who ask them.
  on_top = verbs | {"__main__", "sample", "judge"}
  for path in FILES:
    if room(path) in on_top:
      continue
    for name in imports(path):
      assert not allowed(name, {f"jaxgen.{v}" for v in verbs}), (path, name)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_configs_import_their_base_alone(path):
  for name in imports(path):
    assert name.startswith("configs._") or (
        name == "ml_collections.ConfigDict" and path.stem == "_base"), name


def test_data_never_imports_jax():
  for path in (p for p in FILES if room(p) == "data"):
    for name in imports(path):
      assert not allowed(name, {"jax", "jaxlib", "flax", "optax"}), path


def test_the_rule_notices():
  # The reader itself: what each kind of statement is taken for.
  probe = pathlib.Path(__file__)
  assert {"ast", "pathlib", "pytest", "sys"} == imports(probe)
  assert allowed("jax.numpy", JAX) and not allowed("jaxlib", JAX)
  assert not allowed("flax.linen.Module", RULES["core"][1])
  assert allowed("flax.struct", RULES["core"][1])
