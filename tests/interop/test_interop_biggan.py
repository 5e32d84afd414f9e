"""Checkpoints of BigGAN: the authors' PyTorch code's, and the hubs'."""

import json

import jax
import numpy as np
import pytest
from test_biggan import CASES, GOLDEN, hub, known
from verbs import call

from jaxgen import config, sharding
from jaxgen.checkpoint.restore import restore_subset
from jaxgen.convert import gan_workdir, initial_state, workdir
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import gans, names, tensor_files
from jaxgen.interop.tensors import lazy
from jaxgen.sampling import trained as sampling_trained


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("group", ["gen", "disc"])
def test_weights_come_back_bit_by_bit(case, group):
  _, _, tree, theirs = known(case, group)
  table = gans.GANS["biggan"].entries(group, tree)
  manifest = json.loads(str(np.load(GOLDEN / f"{case}.npz")["manifest"]))
  listed = manifest["discriminator_" * (group == "disc") + "state_dict"]
  assert {e.theirs[0]: list(e.layout) for e in table} == dict(entry[:2] for entry in listed)
  how = gans.GANS["biggan"]
  ours = names.fill(table, how.incoming({k: lazy(v) for k, v in theirs.items()}))
  assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, dict(tree))
  back = how.outgoing(names.spell(table, ours))
  for name, values in theirs.items():
    read = back[name].read()
    assert read.shape == back[name].shape == values.shape
    assert read.tobytes() == values.tobytes(), name


def test_the_hubs_weights_come_back_and_mean_the_same():
  _, ours = hub()
  how = gans.GANS["biggan_hub"]
  back = {k: t.read() for k, t in how.outgoing(names.spell(how.entries("gen", ours), ours)).items()}
  manifest = json.loads(str(np.load(GOLDEN / "biggan_hub_128.npz")["manifest"]))
  assert {k: list(v.shape) for k, v in back.items()} == dict(map(tuple, manifest["state_dict"]))
  again = names.fill(how.entries("gen", ours), how.incoming({k: lazy(v) for k, v in back.items()}))
  for path, leaf in names.flat(ours).items():
    if path.endswith("/sigma"):  # theirs is a function of u, v and the weight
      np.testing.assert_allclose(names.flat(again)[path], leaf, rtol=1e-5)
    else:
      np.testing.assert_array_equal(names.flat(again)[path], leaf)


def test_other_batch_norms_have_other_names():
  """`mybn` and `cross_replica` of the authors' code."""
  how = gans.GANS["biggan"]
  one = lazy(np.ones(1, np.float32))
  theirs = "blocks.0.0.bn1.bn.stored_mean", "blocks.0.0.bn2.bn.running_var", "linear.bias"
  theirs = *theirs, "output_layer.0.bn.accumulation_counter"
  weights = how.incoming(dict.fromkeys(theirs, one))
  assert set(weights) == {"blocks.0.0.bn1.stored_mean", "blocks.0.0.bn2.stored_var", "linear.bias"}


def small(name="biggan"):
  """A config of tiny nets, of 8x8 pixels."""
  c = config.load(f"configs/{name}.py:debug")
  c.model.gen.width = c.model.disc.width = 4
  return c


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
  """-> paths of G_ema.pth and D.pth, of random weights; and these."""
  folder = tmp_path_factory.mktemp("theirs")
  experiment = Experiment.of(small())
  data = initial_state.DataSpec("digits", (8, 8, 1), 10)
  abstract = experiment.abstract(data, sharding.make_mesh())
  rng = np.random.default_rng(0)
  draw = lambda s: (1 + rng.random(s.shape) / 9).astype(np.float32)
  groups = {g: jax.tree.map(draw, gan_workdir.collections(abstract, g)) for g in ("gen", "disc")}
  parts = gans.give({"ema": groups["gen"], "disc": groups["disc"]}, "biggan")
  tensor_files.write(folder / "G_ema.pth", parts[""])
  tensor_files.write(folder / "D.pth", parts["disc"])
  return folder / "G_ema.pth", folder / "D.pth", groups


def test_in_and_out_again(theirs, tmp_path):
  """Both nets and all their statistics; what is sampled is the file's."""
  gen, disc, groups = theirs
  workdir.import_weights(gen, tmp_path / "w", "biggan", small(), disc=disc)
  trained = sampling_trained.load_trained(tmp_path / "w")
  ours = {"params": trained.params["gen"], **trained.stats["gen"]}
  jax.tree.map(np.testing.assert_array_equal, ours, groups["gen"])
  done = workdir.export_weights(tmp_path / "w", tmp_path / "G.pth", disc=tmp_path / "D.pth")
  assert done["tensors"] == len(tensor_files.read(gen))
  for name, path in (("G.pth", gen), ("D.pth", disc)):
    back, tensors = tensor_files.read(tmp_path / name), tensor_files.read(path)
    assert set(back) == set(tensors)
    for key, tensor in tensors.items():
      assert back[key].read().tobytes() == tensor.read().tobytes()


def test_without_a_discriminator_it_begins_at_random(theirs, tmp_path):
  lines = []
  workdir.import_weights(theirs[0], tmp_path / "w", "biggan", small(), log=lines.append)
  assert any("no discriminator: it begins at random" in x for x in lines)
  trained = sampling_trained.load_trained(tmp_path / "w")
  shapes = gan_workdir.abstract(trained)
  _, state, _ = restore_subset(tmp_path / "w", {"params": {"disc": shapes.params["disc"]}})
  kernel = np.asarray(state["params"]["disc"]["block_0_0"]["conv_2"]["kernel"])
  W = kernel.reshape(-1, kernel.shape[-1])
  np.testing.assert_allclose(W.T @ W, np.eye(len(W.T)), atol=1e-5)


MISTAKES = {
  "swapped": (["--checkpoint={disc}"], "file and config do not match"),
  "wider": (["--config.model.gen.width=8"], "config wants ["),
  "hub": (
    ["--source=biggan_hub"],
    "biggan_hub has no checkpoints of nets.biggan.Generator: try biggan",
  ),
  "stored": (["--source=biggan_hub", "--config=configs/biggan_deep.py:debug"], "stored=True"),
  "other": (["--source=stylegan2"], "try biggan"),
  "config": (["--config=configs/digits_gan.py"], "has no checkpoints of nets.convs.Generator"),
  "disc": (["--disc={gen}.none"], "there is no file"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_of_importing(case, theirs, tmp_path, capsys, monkeypatch):
  """One line, and nothing is written."""
  argv, message = MISTAKES[case]
  gen, disc, _ = theirs
  good = ["--source=biggan", "--checkpoint={gen}", "--config=configs/biggan.py:debug"]
  flags = {a.partition("=")[0]: a.format(gen=gen, disc=disc) for a in good + argv}
  flags = [*flags.values(), f"--workdir={tmp_path / 'w'}"]
  status, out, lines = call(capsys, monkeypatch, "import", *flags)
  assert (status, out, len(lines)) == (2, "", 1), lines
  assert message in lines[0] and not any(tmp_path.iterdir())


def test_a_discriminator_of_one_file_is_no_other_file(theirs):
  for source in ("stylegan2", "biggan_hub"):
    with pytest.raises(UserError, match="discriminators alone: leave --disc"):
      gan_workdir.check_disc(source, "--disc")
