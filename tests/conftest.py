"""Tests run on the CPU and share compiled programs; each is marked by its file."""

import atexit
import contextlib
import gc
import os
import shutil
import signal
import tempfile

import marks
import pytest

# Before jax is imported; and with setdefault, so that somebody who wants
# another place (or an accelerator) says so in the environment.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAXGEN_TEST_TMP" not in os.environ:
  folder = tempfile.mkdtemp(prefix="jaxgen-tests-")
  os.environ["JAXGEN_TEST_TMP"] = folder
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
TMP = os.environ["JAXGEN_TEST_TMP"]
os.environ.setdefault("JAXGEN_DATA", os.path.join(TMP, "data"))
# Subprocesses inherit all this: what one compiled, the next one reads. They
# find our package and the helpers, which pytest finds by pyproject.toml.
HERE = os.path.dirname(__file__)
os.environ["PYTHONPATH"] = os.pathsep.join(
  filter(None, (os.path.dirname(HERE), os.path.join(HERE, "helpers"), os.environ.get("PYTHONPATH")))
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(TMP, "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Most programs here take longer to compile than to run: without LLVM's passes,
# and with the older emitter of loops in one module, compiling takes a third as
# long. (See `optimised`. A jaxlib that has lost one of these flags says so.)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if FLAGS not in (flags := os.environ.get("XLA_FLAGS", "")):
  os.environ["XLA_FLAGS"] = f"{flags} {FLAGS}".strip()
# One device, whatever the cores: what is compared is compared on the same.
os.environ.setdefault("JAXGEN_CPU_DEVICES", "1")
# In the background of a script Ctrl-C is ignored, and so by what tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)


# Of a run's millions of objects few are garbage: look for them seldom.
gc.set_threshold(50_000, 20, 50)


@contextlib.contextmanager
def compiling(optimised: bool):
  """Compiles so meanwhile, here and in subprocesses."""
  import jax

  before = jax.config.values["jax_disable_most_optimizations"]
  if before is not optimised:  # as it should be
    yield
    return
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(not optimised)))
    jax.config.update("jax_disable_most_optimizations", not optimised)
    jax.clear_caches()  # which do not ask how a program was compiled
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(scope="module")
def optimised():
  """For files whose numbers LLVM's passes bring nearer to the true ones."""
  with compiling(optimised=True):
    yield


@pytest.fixture(scope="module", autouse=True)
def theorems(request):
  """Those of a law or a golden file are such."""
  if marks.MARK.get(request.path) == "theorem":
    request.getfixturevalue("optimised")


@pytest.fixture(scope="module")
def unoptimised():
  """For files of the others, whatever the environment says."""
  with compiling(optimised=False):
    yield


@pytest.fixture
def verb(capsys, monkeypatch):
  """Runs a verb by its words -> status, what it printed, lines on stderr."""
  import verbs

  return lambda *argv: verbs.call(capsys, monkeypatch, *argv)


def pytest_collection_modifyitems(items):
  for item in items:
    if mark := marks.MARK.get(item.path):  # tests/style misses what has none
      item.add_marker(mark)
