"""DiffWave's and HiFi-GAN's files in and out again: every name, every bit."""

import functools
import pickle
import shutil
import zipfile

import jax
import numpy as np
import pytest
import soundfile
from games import same
from vocoders import RATE, song

import jaxgen
from jaxgen import config, train
from jaxgen.checkpoint import restore
from jaxgen.checkpoint.restore import latest_meta
from jaxgen.config import build
from jaxgen.convert import diffwave_workdir, hifigan_workdir, initial_state
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.interop import diffwave_names, hifigan_names, names, tensor_files, torchwrite
from jaxgen.interop.tensors import lazy
from jaxgen.sampling import trained

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(0)
PARAMS = dict(
  residual_layers=2,
  residual_channels=8,
  dilation_cycle_length=2,
  noise_schedule=np.linspace(1e-4, 0.05, 50).tolist(),
  sample_rate=8000,
  n_mels=12,
  n_fft=256,
  hop_samples=64,
  crop_mel_frames=8,
  learning_rate=2e-4,
)
NETS = {
  "diffwave": dict(
    name="nets.diffwave.DiffWave", width=8, layers=2, cycle=2, mels=12, strides=(8, 8)
  ),
  "wavenet": dict(
    name="nets.diffwave.WaveNet",
    width=8,
    skip=6,
    layers=2,
    cycle=2,
    embed=(8, 12, 16),
    mels=12,
    strides=(8, 8),
  ),
}


def random_like(tree):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32) / 9, tree)


def wave_tensors(source):
  """A net's tensors as their file has them."""
  net, mel = build(NETS[source]), np.zeros((1, 9, 12), np.float32)
  tree = jax.eval_shape(net.init, KEY, np.zeros((1, 512, 1)), np.zeros(1), mel)["params"]
  tree = random_like(tree)
  return names.spell(diffwave_names.diffwave_entries(tree, source), tree)


def small(source):
  """The config of such a net."""
  c = config.load(f"configs/{source}.py:base").unlock()
  c.data.update(source="spoken_digits", size=512, rate=8000)
  c.model.net = NETS[source]
  c.model.cond.mel.front.update(rate=8000, mels=12, hop=64, fft=256)
  if source == "wavenet":
    c.model.cond.mel.front.highest = 4000.0
  c.log.pictures = 0
  return c


def write_with(path, tensors, **plain):
  """As torch.save does: sets of tensors, and plain data beside them."""
  tensor_files.write(path, tensors)
  order, items = [], b""
  for name, group in tensors.items():
    items += torchwrite.text(name) + torchwrite.index(group, order)
  for name, value in plain.items():
    items += torchwrite.text(name) + pickle.dumps(value, 2)[2:-1]
  with zipfile.ZipFile(path) as f:
    parts = [(e.filename.partition("/")[2], f.read(e)) for e in f.infolist()]
  with zipfile.ZipFile(path, "w") as f:
    for name, data in parts:
      torchwrite.entry(f, name, b"\x80\2}(" + items + b"u." if name == "data.pkl" else data)


def equal(file, tensors):
  """Whether a file's set holds exactly these."""
  assert set(file) == set(tensors)
  for name, tensor in tensors.items():
    assert file[name].read().tobytes() == np.asarray(tensor.read()).tobytes(), name


@pytest.mark.parametrize("source", NETS)
def test_diffwaves_in_and_out_again_bit_by_bit(source, tmp_path):
  tensors, own = wave_tensors(source), diffwave_names.SETS[source]
  # Beside the weights, as training saves them, lie the optimiser's numbers.
  more = {"optimizer": {"exp_avg": lazy(np.ones(3, np.float32))}}
  tensor_files.write(tmp_path / "x.pt", {own: tensors} | more)
  lines = []
  import_weights(tmp_path / "x.pt", tmp_path / "w", source, small(source), log=lines.append)
  assert len(lines) == (source == "wavenet") and all("adds_step=False" in x for x in lines)
  data = trained.load_trained(tmp_path / "w").data
  assert (data["shape"], data["dtype"], data["rate"]) == ([512, 1], "int16", 8000)
  report = export_weights(tmp_path / "w", tmp_path / "y.pt")
  assert report["tensors"] == len(tensors)
  sets = tensor_files.sets(tmp_path / "y.pt")
  assert list(sets) == [own]
  equal(sets[own], tensors)
  export_weights(tmp_path / "w", tmp_path / "y.safetensors", ema="none")
  equal(tensor_files.read(tmp_path / "y.safetensors"), tensors)


def test_a_file_of_lmnt_tells_its_net_and_its_schedule(tmp_path):
  tensors, file = wave_tensors("diffwave"), tmp_path / "weights.pt"
  write_with(file, {"model": tensors}, step=7, params=PARAMS, scaler={"scale": 65536.0})
  lines = []
  import_weights(file, tmp_path / "w", "diffwave", log=lines.append)
  assert lines == [
    "read as configs/diffwave.py:base, its own schedule and dilations; if it is another, give a "
    "--config"
  ]
  c = latest_meta(tmp_path / "w")["config"]
  net, front = c["model"]["net"], c["model"]["cond"]["mel"]["front"]
  assert {k: net[k] for k in ("width", "layers", "cycle", "mels", "steps")} == dict(
    width=8, layers=2, cycle=2, mels=12, steps=50
  )
  assert (net["strides"], front["fft"], front["hop"]) == ([8, 8], 256, 64)
  assert (c["data"]["rate"], c["data"]["size"]) == (8000, 512)
  lines.clear()
  other = small("diffwave")
  other.model.net.cycle = 1
  import_weights(file, tmp_path / "v", "diffwave", other, log=lines.append)
  assert lines == ["the file says model.net.cycle=2; the config says 1, and rules"]


@pytest.mark.parametrize("name", ["diffwave.py:sc09-class", "wavenet.py:base", "hifigan.py:v2"])
def test_files_of_published_shapes_need_no_config(name):
  """Nor their values, to be known."""
  want, lines = config.load(f"configs/{name}"), []
  source = name.partition(".")[0]
  file = initial_state.ForeignFile("x", source, None, 0, None, None, None, lines.append)
  if source == "hifigan":
    mel = np.zeros((1, 4, 80), np.float32)
    tree = jax.eval_shape(build(want.model.gen).init, KEY, mel)["params"]
    table = hifigan_names.gen_entries(tree)
    got = hifigan_workdir.usual(names.spell(table, tree), file)
  else:
    cond = {"mel": np.zeros((1, 4, 80), np.float32)} if want.model.net.mels else {}
    cond |= {"y": np.zeros(1, np.int32)} if want.model.net.labels else {}
    init = functools.partial(build(want.model.net).init, KEY, np.zeros((1, 512, 1)), np.zeros(1))
    tree = jax.eval_shape(init, **cond)["params"]
    table = diffwave_names.diffwave_entries(tree, source)
    got = diffwave_workdir.usual(names.spell(table, tree), {}, file)
  assert got.data.to_dict() == want.data.to_dict()
  for k, v in want.model.get("net", want.model.get("gen")).items():
    assert got.model.get("net", got.model.get("gen"))[k] == v
  (line,) = lines
  assert "taken for it" in line and "give a --config" in line


BAD = {
  "sizes": ({}, "no published net, and does not say after how many layers"),
  "number": (PARAMS | {"n_fft": 1 << 40}, "params.n_fft is 1099511627776: want a number up to"),
  "kind": (PARAMS | {"sample_rate": "8000"}, "params.sample_rate is 8000: want a number"),
  "curve": (PARAMS | {"noise_schedule": [1e-4, 1e-3, 0.05]}, "noise_schedule is not linear"),
  "words": (PARAMS | {"noise_schedule": ["a", "b"]}, "noise_schedule is no list of numbers"),
}


@pytest.mark.parametrize(("params", "says"), BAD.values(), ids=BAD)
def test_files_of_lmnt_that_cannot_be(params, says, tmp_path):
  write_with(tmp_path / "x.pt", {"model": wave_tensors("diffwave")}, params=params)
  with pytest.raises(UserError, match=says):
    import_weights(tmp_path / "x.pt", tmp_path / "w", "diffwave")
  assert not (tmp_path / "w").exists()


def test_files_that_do_not_fit(tmp_path):
  def refused(says, source, tensors, c=None, **more):
    tensor_files.write(tmp_path / "x.pt", tensors)
    with pytest.raises(UserError, match=says):
      import_weights(tmp_path / "x.pt", tmp_path / "w", source, c, **more)

  wave, theirs = wave_tensors("diffwave"), vocoder_tensors()
  odd = {"a": lazy(np.ones(3, np.float32))}
  refused("no checkpoint of wavenet: it lacks residual_layer.fc_t1.weight", "wavenet", wave)
  refused("wavenet has no checkpoints of nets.diffwave.DiffWave: try diffwave", "wavenet", wave,
          small("diffwave"))  # fmt: skip
  refused("adm has no checkpoints of nets.diffwave.WaveNet: try wavenet", "adm", wave,
          small("wavenet"))  # fmt: skip
  few = {k: t for k, t in wave.items() if "layers.1.dil" not in k}
  refused(r"2 not in the file \(residual_layers.1.dilated_conv", "diffwave", few, small("diffwave"))
  refused("--size=9, but config.data.size=512", "diffwave", wave, small("diffwave"), size=9)
  refused("a DiffWave has none", "diffwave", wave, small("diffwave"), disc="x")
  refused("adm has no checkpoints of models.vocoder_gan.VocoderGAN: try hif", "adm", odd, vocoder())
  refused(r"no published HiFi-GAN \(v1, v2, v3\)", "hifigan", odd)
  refused("hifigan has no checkpoints of nets.diffwave.DiffWave: try diffwave", "hifigan", odd,
          small("diffwave"))  # fmt: skip
  refused(r"conv_post.bias: file has \[3\], config wants \[1\]", "hifigan",
          theirs["generator"] | {"conv_post.bias": odd["a"]}, vocoder())  # fmt: skip
  refused("holds no mpd and no msd, but .: want the do_", "hifigan", theirs["generator"],
          vocoder(), disc=str(tmp_path / "x.pt"))  # fmt: skip
  assert not (tmp_path / "w").exists()


def vocoder():
  """HiFi-GAN's config of small nets, whose first scale has a spectral norm."""
  c = config.load("configs/hifigan.py:debug").unlock()
  c.model.disc.update(scales=2)
  c.log.pictures = 0
  return c


def vocoder_trees():
  """Random collections of ours, of both groups."""
  model = build(vocoder().model)
  params, stats = jax.eval_shape(model.init, {"x": np.zeros((1, 512, 1), np.float32)}, KEY)
  tree = random_like({"gen": params["gen"], "disc": {"params": params["disc"]} | stats["disc"]})
  return tree


def vocoder_tensors():
  """Their sets of tensors."""
  tree = vocoder_trees()
  gen = names.spell(hifigan_names.gen_entries(tree["gen"]), tree["gen"])
  disc = names.spell(hifigan_names.disc_entries(tree["disc"]), tree["disc"])
  sets = {"generator": gen, "mpd": {}, "msd": {}}
  for name, tensor in hifigan_names.outgoing(disc).items():
    kind, _, name = name.partition(".")
    sets[kind][name] = tensor
  return sets


@pytest.fixture(scope="module")
def both(tmp_path_factory):
  """-> folder with g and do, as training saves them, and w of both; not to be changed."""
  folder, sets = tmp_path_factory.mktemp("hifigan"), vocoder_tensors()
  tensor_files.write(folder / "g.pt", {"generator": sets["generator"]})
  (folder / "g.pt").rename(folder / "g_00000010")
  moments = {"exp_avg": lazy(np.ones(3, np.float32))}
  discs = {k: sets[k] for k in ("mpd", "msd")}
  write_with(folder / "do.pt", discs | {"optim_g": moments}, steps=10, epoch=1)
  (folder / "do.pt").rename(folder / "do_00000010")
  lines = []
  import_weights(
    folder / "g_00000010",
    folder / "w",
    "hifigan",
    vocoder(),
    disc=folder / "do_00000010",
    log=lines.append,
  )
  assert not lines
  return folder, sets


def test_hifigans_in_and_out_again(both, tmp_path):
  """Bit by bit, but for v of spectral norms, of which ours keeps what it means."""
  folder, sets = both
  report = export_weights(folder / "w", tmp_path / "g.pt", disc=tmp_path / "do.pt")
  assert report["tensors"] == len(sets["generator"])
  back = tensor_files.sets(tmp_path / "g.pt") | tensor_files.sets(tmp_path / "do.pt")
  assert set(back) == set(sets)
  vectors = {
    k.replace("_orig", "_v")
    for k in sets["msd"]
    if k.startswith("discriminators.0") and "orig" in k
  }
  assert len(vectors) == 8
  for kind, tensors in sets.items():
    exact = {k: t for k, t in tensors.items() if kind != "msd" or k not in vectors}
    equal({k: t for k, t in back[kind].items() if k in exact}, exact)
    assert set(back[kind]) == set(tensors)
  for name in vectors:
    np.testing.assert_allclose(back["msd"][name].read(), sets["msd"][name].read(), rtol=1e-4)


def test_a_generator_alone_samples_and_says_so(both, tmp_path):
  folder, sets = both
  lines = []
  import_weights(folder / "g_00000010", tmp_path / "w", "hifigan", vocoder(), log=lines.append)
  assert lines == ["the file holds no discriminators: they begin at random, if it is trained on"]
  alone = trained.load_trained(tmp_path / "w").params
  assert same(alone, trained.load_trained(folder / "w").params)
  _, saved, _ = restore.restore_subset(
    tmp_path / "w", lambda meta: restore.abstract_leaves(meta, ["params/disc"])
  )
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(saved) if np.ndim(x) > 1)


def test_mels_become_sound(both, tmp_path, verb):
  """By the verb, of both families."""
  np.save(tmp_path / "x.npy", np.full((12, 40), -3, np.float32))
  argv = f"--mel={tmp_path / 'x.npy'}", f"--out={tmp_path / 'x.wav'}"
  status, _, lines = verb("sample", f"--workdir={both[0] / 'w'}", *argv)
  assert status == 0, lines
  assert (tmp_path / "x.wav").stat().st_size > 12 * 64 * 2
  write_with(tmp_path / "weights.pt", {"model": wave_tensors("diffwave")}, params=PARAMS)
  argv = "--source=diffwave", f"--checkpoint={tmp_path / 'weights.pt'}"
  status, out, lines = verb("import", *argv, f"--workdir={tmp_path / 'w'}")
  assert status == 0 and "weights.pt -> " in out, lines
  np.save(tmp_path / "y.npy", np.full((13, 12), 0.5, np.float32))
  argv = f"--mel={tmp_path / 'y.npy'}", f"--out={tmp_path / 'y.wav'}", "--respacing=fast"
  status, _, lines = verb("sample", f"--workdir={tmp_path / 'w'}", *argv)
  assert status == 0, lines
  assert (tmp_path / "y.wav").stat().st_size > 12 * 64 * 2


def test_training_goes_on(both, tmp_path):
  """From both files' weights, with everybody's norms, on recordings of one's own."""
  (tmp_path / "data").mkdir()
  for i in range(2):
    soundfile.write(tmp_path / "data" / f"{i}.wav", song(2000, i), RATE)
  c = vocoder()
  c.steps, c.batch, c.data.source = 1, 2, f"folder:{tmp_path / 'data'}"
  c.optim.gen.lr = c.optim.disc.lr = 1e-6
  before = vocoder_trees()
  shutil.copytree(both[0] / "w", tmp_path / "w")
  state = train.train(c, str(tmp_path / "w"), quiet=True)
  near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
  jax.tree.map(near, state.params["gen"], before["gen"])
  jax.tree.map(near, state.params["disc"], before["disc"]["params"])
  spectral = state.stats["disc"]["spectral"]
  moved = jax.tree.map(lambda a, b: np.any(a != b), spectral, before["disc"]["spectral"])
  assert all(jax.tree.leaves(moved))
  assert jaxgen.load(str(tmp_path / "w")).model.sampled == ("gen",)


def test_tables_name_nothing_else():
  with pytest.raises(UserError, match="hifigan has no name for this net's odd"):
    hifigan_names.gen_entries({"odd": {"kernel": np.ones((3, 1, 1))}})
  with pytest.raises(UserError, match="hifigan has no name for this net's params/odd/kernel"):
    hifigan_names.disc_entries({"params": {"odd": {"kernel": np.ones((3, 1, 1))}}})
