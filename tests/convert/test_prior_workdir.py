"""Priors of codes of other people's files: into a workdir, and out again."""

import jax
import numpy as np
import pytest
from games import filled
from opcodes import text

from jaxgen import config, sharding
from jaxgen.convert.workdir import export_weights, import_weights, save_first
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment, describe, open_data
from jaxgen.interop import names, tensor_files, torchwrite
from jaxgen.interop.pixelsnail_names import PLACES, pixelsnail_entries, places
from jaxgen.interop.tensors import lazy
from jaxgen.models.vqvae import LEVELS
from jaxgen.sampling import trained

pytestmark = pytest.mark.usefixtures("unoptimised")
NET = dict(width=16, blocks=1, res_blocks=1, hidden=4, cond_width=4, out_blocks=1, labels=0)
SIDES = {"top": 2, "bottom": 4}  # of maps of codes


def small(codec, classes=0):
  """A prior of tiny nets, over the codec of a workdir."""
  c = config.load("configs/vqvae2_prior.py:debug").unlock()
  c.data.size = 8
  c.data.classes = classes
  c.model.codec_workdir = str(codec)
  for level in LEVELS:
    c.model.model[level].net.update(NET, labels=classes)
    c.model.model[level].classes = classes
  return c


def of_config(c):
  """-> experiment, data, a state with random weights."""
  experiment, data = Experiment.of(c), open_data(c)
  return experiment, data, filled(experiment.abstract(data, sharding.make_mesh()))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
  """-> folder with a codec's workdir and files of both levels; their tensors."""
  folder, files = tmp_path_factory.mktemp("theirs"), {}
  c = config.load("configs/vqvae2.py:debug")
  _, data, codec = of_config(c)
  save_first(folder / "k", codec, describe(c, data), c.checkpoint, print)
  _, _, state = of_config(small(folder / "k"))
  for level in LEVELS:
    net = state.params[level]
    tensors = {
      k: np.asarray(t.read()) for k, t in names.spell(pixelsnail_entries(net), net).items()
    }
    files[level] = {PLACES: places((SIDES[level],) * 2)} | tensors
  # As training saves them: of data-parallel nets, beside its arguments.
  saved = {f"module.{k}": v for k, v in files["top"].items()}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(torchwrite, "index", with_arguments)
    tensor_files.write(folder / "top.pt", {"model": jax.tree.map(lazy, saved)})
  tensor_files.write(folder / "bottom.pt", jax.tree.map(lazy, files["bottom"]))
  return folder, files, codec.params


def with_arguments(tensors, order, index=torchwrite.index):
  """The index of such a file: {"model": .., "args": Namespace(hier="top")}."""
  namespace = torchwrite.name("argparse", "Namespace") + b")R}" + text("hier") + text("top") + b"sb"
  (name, tensors), *_ = tensors.items()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(torchwrite, "index", index)
    return b"}" + text(name) + index(tensors, order) + b"s" + text("args") + namespace + b"s"


def test_in_and_out_again_bit_by_bit(theirs, tmp_path, verb):
  folder, files, codec = theirs
  assert b"Namespace" in (folder / "top.pt").read_bytes()
  counts = []
  import_weights(
    str(folder / "top.pt"),
    str(tmp_path / "w"),
    "pixelsnail",
    small(folder / "k"),
    bottom=str(folder / "bottom.pt"),
    progress=lambda i, n: counts.append((i, n)),
  )
  total = sum(len(tensors) - 1 for tensors in files.values())
  assert counts == [(i + 1, total) for i in range(total)]
  ours = trained.load_trained(str(tmp_path / "w"))
  jax.tree.map(np.testing.assert_array_equal, ours.params["codec"], codec)
  kernel = ours.params["top"]["block_0"]["res_0"]["conv_1"]["kernel"]
  want = files["top"]["blocks.0.resblocks.0.conv1.conv.conv.weight_v"]
  np.testing.assert_array_equal(kernel, want.transpose(2, 3, 1, 0))
  back = {level: tmp_path / f"{level}.safetensors" for level in LEVELS}
  words = "export", f"--workdir={tmp_path / 'w'}", f"--out={back['top']}"
  status, printed, _ = verb(*words, f"--bottom={back['bottom']}")
  assert status == 0 and printed.startswith(f"{total + 2} tensors of step 0")
  for level, path in back.items():
    read = tensor_files.read(path)
    assert set(read) == set(files[level])
    assert all(read[k].read().tobytes() == v.tobytes() for k, v in files[level].items())
  with pytest.raises(UserError, match="--out and --bottom are both .*: each level has a file"):
    export_weights(str(tmp_path / "w"), str(back["top"]), bottom=str(back["top"]))
  with pytest.raises(UserError, match="a file for each level: --out=top.pt and --bottom=bottom.pt"):
    export_weights(str(tmp_path / "w"), str(back["top"]))


def test_files_that_do_not_fit(theirs, tmp_path):
  folder, files, _ = theirs
  top, bottom, other = (str(folder / f"{name}.pt") for name in ("top", "bottom", "other"))

  def refused(says, top=top, bottom=bottom, c=None, source="pixelsnail"):
    with pytest.raises(UserError, match=says):
      import_weights(top, str(tmp_path / "w"), source, c or small(folder / "k"), bottom=bottom)

  refused("a file for each level: --checkpoint=top.pt and --bottom", bottom=None)
  refused(
    r"^top.pt: file and config do not match: .* 14 not in the file \(blocks.0.out.conv.bias, ",
    bottom=top,
  )
  codec = config.load("configs/vqvae2.py:debug")
  refused("no checkpoints of models.vqvae.VQVAE2: want a models.latent.Latent of a", c=codec)
  refused("--bottom is of a prior of two levels", c=codec, source="vqvae2")
  refused("adm has no checkpoints of models.hierarchy.Hierarchy: try pixelsnail", source="adm")
  refused("knows no labels, and config.model.model.top.classes=10", c=small(folder / "k", 10))
  refused("codec_workdir names no workdir: train the codec first", c=small(""))
  wide = files["bottom"] | {PLACES: places((8, 8))}
  tensor_files.write(other, jax.tree.map(lazy, wide))
  refused(r"^other.pt: background is \[1, 2, 8, 8\] in the file and \[1, 2, 4, 4\]", bottom=other)
  lacking = {k: v for k, v in files["top"].items() if k != "out.0.conv1.conv.bias"}
  tensor_files.write(other, jax.tree.map(lazy, lacking | {"extra": np.ones(3, np.float32)}))
  refused(r"1 not in the file \(out.0.conv1.conv.bias\); 1 not in the con.*extra", top=other)
  assert not (tmp_path / "w").exists()
