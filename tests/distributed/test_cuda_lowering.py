"""Train steps as they are compiled for eight GPUs of one machine, without a GPU.

Whole steps are lowered for CUDA. XLA's partitioner, which is the same for all
platforms, then makes the program of one device: its collectives, and what
cuDNN's kernel gets to see. The compiler of CPUs ends there, for it has no such
kernel; what the partitioner wrote lies in XLA's dump by then.
"""

import collections
import re

import jax
import pod
import pytest
import xla
from jax.sharding import AbstractMesh, AxisType

from jaxgen import config, sharding
from jaxgen.bench.training import cycle
from jaxgen.convert.initial_state import DataSpec
from jaxgen.experiment import Compiled, Experiment, training_batch
from jaxgen.nets import attention

BATCH, SIZE = 16, 16  # 256 positions: the fewest that cuDNN's kernel is taken for
BLOCKS = 4  # of attention: one going down, one in the middle, two going up
DATA, FSDP = 4, 2
CUDNN = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"


def unet():
  c = config.load("configs/adm_imagenet64.py:debug")
  c.model.net.update(width=32, mults=(1,), attend=(SIZE,), dtype="bfloat16")
  return c, DataSpec("images", (SIZE, SIZE, 1), 10)


def stylegan2():
  return config.load("configs/stylegan2.py:debug"), DataSpec("images", (8, 8, 1), 10)


def dit():
  c = config.load("configs/dit.py:debug")
  c.model.net.width = 128  # weights that are worth cutting
  return c, DataSpec("images", (8, 8, 1), 10)


FAMILIES = {"unet": unet, "stylegan2": stylegan2, "dit": dit}


def arguments(family, mesh):
  """What traces a family's first step on a mesh: the step, its turn, shapes."""
  c, data = FAMILIES[family]()
  c.batch = BATCH
  experiment = Experiment.of(c)
  state = experiment.abstract(data, mesh)
  key = jax.eval_shape(lambda: jax.random.key(0))
  put = lambda where, tree: jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), tree
  )
  batch = put(sharding.batched(mesh), training_batch(data, BATCH))
  seed = put(sharding.replicated(mesh), key)
  return Compiled(experiment, mesh), cycle(experiment.model)[0], (state, batch, seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_lowered_for_eight_gpus(family):
  """Nothing in them is of a CPU; batches are cut over all, weights along fsdp."""
  mesh = AbstractMesh((DATA, FSDP), sharding.AXES, axis_types=(AxisType.Auto,) * 2)
  step, turn, args = arguments(family, mesh)
  step.trace(turn, *args)
  program = jax.export.export(step.jitted, platforms=["cuda"])(turn, *args)
  text = program.mlir_module()
  assert program.platforms == ("cuda",) and program.nr_devices == 8
  assert "custom_call" not in text  # all of it is XLA's own
  assert f'sdy.mesh @mesh = <["data"={DATA}, "fsdp"={FSDP}]>' in text
  signature = text[text.index("@main(") :].partition("\n")[0]
  places = collections.Counter(re.findall(r"%arg\d+[^%]*?<@mesh, (\[.*?\])>", signature))
  cut = [p for p in jax.tree.leaves(args[0].params) if not p.sharding.is_fully_replicated]
  # Weights, and what is kept of them alike: Adam's moments, averages.
  assert cut and sum(n for p, n in places.items() if p.count('"') == 2) >= 3 * len(cut)
  assert any(place.startswith('[{"data", "fsdp"}') for place in places), places


PARTITION = """
import os, sys
sys.path.insert(0, "tests/distributed")
import test_cuda_lowering
test_cuda_lowering.partition()
"""


def partition():
  """Compiles the U-Net's step for CUDA as far as a CPU can; in a process of its own."""
  attention._has_cudnn = lambda: True
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(CUDNN, lambda: 91100)
    step, turn, args = arguments("unet", sharding.make_mesh({"data": DATA, "fsdp": FSDP}))
    lowered = step.trace(turn, *args).lower(lowering_platforms=("cuda",))
  assert lowered.as_text().count("custom_call @CustomSPMDPartitioning") == 2 * BLOCKS
  with pytest.raises(jax.errors.JaxRuntimeError, match="__cudnn.fmhaSoftmax.* for Host"):
    lowered.compile()


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory):
  """HLO of one of 4 x 2 devices, JAXGEN_ATTENTION=cudnn."""
  dump = tmp_path_factory.mktemp("dump")
  flags = f"{xla.devices(8)} --xla_dump_to={dump} --xla_dump_hlo_pass_re=spmd"
  env = {"XLA_FLAGS": flags, attention.SWITCH: "cudnn", "JAX_COMPILATION_CACHE_DIR": None}
  (done,) = pod.run(1, 8, PARTITION, env=env, timeout=300)
  assert done.status == 0, done.stderr
  files = dump.glob("*jit_step*after_spmd-partitioning*.txt")
  (text,) = [t for t in (f.read_text() for f in files) if "fmha" in t]
  return text


def test_cudnn_sees_the_images_of_its_device_alone(partitioned):
  """Two of sixteen, all positions, all heads: no image travels to be attended."""
  calls = re.findall(r" custom-call\(.*custom_call_target=\"(__cudnn[^\"]*)\".*", partitioned)
  assert collections.Counter(calls) == {
    "__cudnn$fmhaSoftmax": BLOCKS,
    "__cudnn$fmhaSoftmaxBackward": BLOCKS,
  }
  for line in partitioned.splitlines():
    if 'target="__cudnn$fmhaSoftmax' in line:
      q = re.search(r"operand_layout_constraints=\{bf16\[([\d,]+)\]", line)[1]
      assert q == f"{BATCH // 8},{SIZE * SIZE},2,16"


def test_weights_are_gathered_and_gradients_summed(partitioned):
  kinds = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
  counts = {kind: len(re.findall(rf" {kind}\(", partitioned)) for kind in kinds}
  assert counts["all-gather"] > 0
  assert counts["all-reduce"] + counts["reduce-scatter"] > 0
  assert counts["all-to-all"] == counts["collective-permute"] == 0
