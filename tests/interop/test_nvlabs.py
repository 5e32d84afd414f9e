"""NVLabs' pickles, and the port's checkpoints of StyleGAN2, without their code."""

import functools
import json
import pathlib
import pickle
import struct
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from opcodes import (
  SOURCE,
  alone,
  binbytes,
  called,
  mapping,
  module,
  reconstructed,
  snapshot,
  state_of,
  stored,
  tensor,
)
from test_names import normal, weights
from test_tensor_files import damage

from jaxgen import config, sharding
from jaxgen.checkpoint.restore import restore_subset
from jaxgen.config import build
from jaxgen.convert.initial_state import DataSpec
from jaxgen.convert.workdir import export_weights, import_weights
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.interop import edm, gans, names, stylegan2_names, tensor_files
from jaxgen.interop.infer import infer
from jaxgen.interop.tensors import lazy
from jaxgen.interop.torchwrite import ORDERED, name, text
from jaxgen.nets.stylegan2 import Discriminator, Generator

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
WEIGHTS = {
  "mapping.w_avg": np.float32([1, 2]),
  "mapping.fc0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
  "synthesis.b4.conv1.noise_strength": np.array(3, np.float32),
}


def test_modules_are_read_by_their_tensors(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  weights = {"G": WEIGHTS, "G_ema": {k: v + 1 for k, v in WEIGHTS.items()}}
  pathlib.Path("x.pkl").write_bytes(snapshot(weights))
  sets = tensor_files.sets("x.pkl")
  assert {key: set(one) for key, one in sets.items()} == {k: set(v) for k, v in weights.items()}
  for key, one in sets.items():
    for k, t in one.items():
      assert t.shape == weights[key][k].shape and t.dtype == np.float32
      np.testing.assert_array_equal(t.read(), weights[key][k])
  with pytest.raises(UserError, match=r"--key.*G \(3 tensors\), G_ema \(3"):
    tensor_files.read("x.pkl")
  # EDM's: {"ema": ..}, some containers PyTorch's own, and nothing else of size.
  inner = name("torch.nn.modules.container", "ModuleDict") + b")\x81"
  inner += state_of({"w": np.float32([7])}) + b"b"
  state = mapping({"_modules": mapping({"enc": inner})})
  sets = {"ema": module({}, state), "loss_fn": module({}), "augment_pipe": b"N"}
  pathlib.Path("y.pkl").write_bytes(alone(mapping(sets)))
  assert {k: v.read() for k, v in tensor_files.read("y.pkl").items()} == {"enc.w": 7}
  assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pkl", "y.pkl"]


def test_a_torch_file_by_that_name_is_one(tmp_path):
  for source in ("torch_legacy.pt", "torch_zip.pt"):
    path = tmp_path / "x.pkl"
    path.write_bytes((GOLDEN / source).read_bytes())
    assert set(tensor_files.read(path)) == set(tensor_files.read(GOLDEN / source))


def test_large_values_stay_in_the_file(tmp_path):
  big = {f"w{i}": np.full((1 << 19,), i, np.float32) for i in range(8)}
  (tmp_path / "x.pkl").write_bytes(snapshot({"G": big}))
  big.clear()
  tracemalloc.start()
  total = sum(float(t.read()[-1]) for t in tensor_files.read(tmp_path / "x.pkl").values())
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert total == 28 and peak < 6 << 20  # one has 2 MiB


EVIL = called("os", "system", text("touch hacked"))
ONE = np.float32([1])


def bred(n):
  """A module of two modules of two modules: 2^n tensors."""
  body = module({"w": ONE}) + b"q\0"
  twice = {"_modules": mapping({"a": b"h\0", "b": b"h\0"})}
  for _ in range(n):
    body += b"0" + reconstructed(mapping({"state": mapping(twice)})) + b"q\0"
  return alone(body)


def nested(data):
  """A tensor whose storage's file has that index."""
  return alone(tensor(ONE, stored(ONE, b"\x80\2" + data + b".")))


HOSTILE = {
  "os": (alone(EVIL), "asks for os.system: refused"),
  "posix": (alone(called("posix", "system", text("x"))), "asks for posix.system: refused"),
  "newer": (
    b"\x80\4\x8c\2os\x94\x8c\6system\x94\x93\x94\x8c\x0ctouch hacked\x94\x85\x94R\x94.",
    "asks for os.system: refused",
  ),
  "exec": (alone(called("builtins", "exec", text(SOURCE))), "s.exec: refu"),
  "within": (alone(module({}, mapping({"_modules": EVIL}))), "os.system"),
  "beside": (alone(mapping({"G": module({"w": ONE}), "x": EVIL})), "refus"),
  "nested": (nested(EVIL), "asks for os.system: refused"),
  "nested twice": (
    nested(called("torch.storage", "_load_from_bytes", binbytes(stored(ONE)))),
    "asks for torch.storage._load_from_bytes: refused",
  ),
  "nested module": (nested(module({})), "refused"),
  "nested dict": (nested(b"}"), "damaged"),
  "not nested": (alone(tensor(ONE, b"\x80\2}." + bytes(80))), "not one of"),
  "short": (alone(tensor(ONE, b"\x80\2}.")), "is damaged"),
  "text": (alone(called("torch.storage", "_load_from_bytes", text("x" * 99))), "is damaged"),
  "class": (
    alone(name("torch.nn.modules.conv", "Conv2d") + b")\x81"),
    "asks for torch.nn.modules.conv.Conv2d: refused",
  ),
  "older": (
    alone(name("dnnlib.tflib.network", "Network") + b")\x81"),
    "asks for dnnlib.tflib.network.Network: refused",
  ),
  "outside": (alone(text("x") + b"Q"), "is damaged"),
  "beyond": (alone(tensor(ONE, shape=(2,))), "beyond its storage"),
  "cut": (snapshot({"G": WEIGHTS})[:-400], "is damaged"),
  "far": (alone(b"B" + struct.pack("<I", 1 << 30)), "is damaged"),
  "rabbits": (bred(20), "larger module than any"),
  "meta": (alone(reconstructed(b"K\7")), "damaged"),
  "arguments": (
    alone(name("torch.nn.modules.container", "ModuleList") + b"}\x85\x81"),
    "is damaged",
  ),
  "key": (alone(called("dnnlib.util", "EasyDict", b"]))\x86a")), "a key"),
  "number": (alone(b"K\7"), "no tensors by name"),
  "nothing": (alone(mapping({"G": module({})})), "no tensors by name"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_one_line(case, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  data, message = HOSTILE[case]
  pathlib.Path("x.pkl").write_bytes(data)
  with pytest.raises(UserError, match=message) as e:
    tensor_files.read("x.pkl")
  assert str(e.value).startswith("x.pkl ") and "\n" not in str(e.value)
  assert str(e.value).isprintable()
  assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_random_damage_never_ends_in_another_error(tmp_path):
  (tmp_path / "x.pkl").write_bytes(snapshot({"G": WEIGHTS}))
  damage(tmp_path / "x.pkl", np.random.default_rng(0))


# The port.


def port():
  """-> the port's tensors by set, and its numbers."""
  golden = dict(np.load(GOLDEN / "torch_stylegan2_port.npz"))
  manifest = json.loads(str(golden["manifest"]))
  sets = {"": {"latent_avg": lazy(golden["latent_avg"][None])}}
  for at, key in (("g_ema", ""), ("d", "discriminator_")):
    sets[at] = {}
    for i, (n, shape, *is_filter) in enumerate(manifest[f"{key}state_dict"]):
      z = normal(manifest[f"{key}seed"], i, shape)
      z *= np.float32((100 if n.startswith("style") else 1) if len(shape) > 1 else 0.1)
      if is_filter:
        z = stylegan2_names.FILTER * (4 if at == "g_ema" else 1)
      sets[at][n] = lazy(z + np.float32(n.endswith("modulation.bias")))
  return sets, golden


def test_the_ports_nets_answer_as_there():
  sets, golden = port()
  gen = Generator(size=8, base=4096, w_dim=32, layers=2)
  disc = Discriminator(base=4096)
  z, x = golden["z"], golden["x"].transpose(0, 2, 3, 1)
  trees = {
    "gen": jax.eval_shape(gen.init, jax.random.key(0), z),
    "disc": jax.eval_shape(disc.init, jax.random.key(0), x),
  }
  ours = gans.take(sets, trees, "stylegan2")
  assert set(ours) == {"ema", "disc"}
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())
  with jax.default_matmul_precision("highest"):
    ws = gen.apply(ours["ema"], z, None, 0.7, method="map")
    near(ws, golden["latent"])
    images = gen.apply(ours["ema"], ws, method="synthesize")
    near(images.transpose(0, 3, 1, 2), golden["generated"])
    near(disc.apply(ours["disc"], x)[:, None], golden["logits"])
  # And out again, filters and all.
  back = gans.give(ours, "stylegan2")
  assert back.pop("latent_avg").shape == (32,)
  assert set(back) == {"g_ema", "d"}
  for at, tensors in back.items():
    assert set(tensors) == set(sets[at])
    for k, t in tensors.items():
      np.testing.assert_array_equal(t.read(), sets[at][k].read())
  sets["d"]["convs.1.skip.0.kernel"] = lazy(np.ones((4, 4), np.float32))
  with pytest.raises(UserError, match="another filter than"):
    gans.take(sets, trees, "stylegan2")


# EDM.


def test_edms_network_is_adms():
  golden = np.load(GOLDEN / "torch_edm_dhariwal.npz")
  manifest = json.loads(str(golden["manifest"]))
  filters = {n for n, _, *is_filter in manifest["state_dict"] if is_filter}
  tensors = {
    f"model.{n}": lazy(np.ones_like(x) if n in filters else x) for n, x in weights(manifest).items()
  }
  args = dict(width=64, mults=(1, 2), blocks=1, attend=(4,), head=64, labels=10, updown=True)
  net = build(dict(name="nets.unet.UNet", least=4, **args))
  x, args = golden["x"].transpose(0, 2, 3, 1), (golden["t"], golden["y"])
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, *args)["params"]
  params = names.take(edm.as_adm(tensors), shapes, "adm")
  out, want = jax.jit(net.apply)({"params": params}, x, *args), golden["output"]
  np.testing.assert_allclose(out.transpose(0, 3, 1, 2), want, rtol=0, atol=2e-5 * abs(want).max())
  inferred = infer(edm.as_adm(tensors)).net
  assert (inferred["mults"], inferred["blocks"], inferred["labels"]) == ((1, 2), 1, 10)
  for wrong in (dict(heads=4), dict(heads_up=1), dict(head=32), dict(split_first=True)):
    with pytest.raises(UserError, match="EDM's"):
      edm.check(dict(head=64) | wrong)
  odd = tensors | {"model.enc.4x4_block0.qkv.weight": lazy(np.ones((96, 32)))}
  with pytest.raises(UserError, match="64 channels per head, and this"):
    edm.as_adm(odd)
  with pytest.raises(UserError, match="has no place"):
    edm.as_adm(tensors | {"model.enc.4x4_block0.odd.weight": lazy(np.ones(1))})
  with pytest.raises(UserError, match="no pickle of EDM's DhariwalUNet"):
    edm.as_adm({"model.enc.8x8_conv.weight": lazy(np.ones(1))})


# Into a workdir.


def small(classes=10, timed=False):
  c = config.load("configs/stylegan2.py:debug")
  if timed:
    with c.unlocked():
      c.model.augment = dict(name="adversarial.noising.Noising")
      c.model.disc.timed = True
  c.data.classes = c.model.classes = classes
  c.model.gen.classes = c.model.disc.classes = classes
  return c


@functools.cache
def random_sets(classes, source, timed=False):
  """Other weights for each set -> sets, and our trees of them."""
  model, rng = build(small(classes, timed).model), np.random.default_rng(0)
  batch = {"x": jnp.zeros((1, 8, 8, 1)), "y": jnp.zeros(1, jnp.int32)}
  params, stats = jax.eval_shape(lambda b: model.init(b, jax.random.key(0)), batch)
  trees = {g: {"params": params[g]} | stats[g] for g in params}
  how, sets, parts = gans.GANS[source], {}, {}
  draw = lambda s: rng.standard_normal(s.shape).astype(np.float32)
  for part in ("gen", "ema", "disc"):
    tree = parts[part] = jax.tree.map(draw, trees[gans.GROUP[part]])
    sets[how.sets[part]] = names.spell(how.entries(gans.GROUP[part], tree), tree)
  return sets, parts


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def restored(workdir, classes, timed=False):
  like = Experiment.of(small(classes, timed)).abstract(
    DataSpec("digits", (8, 8, 1), classes), sharding.make_mesh()
  )
  _, state, _ = restore_subset(
    workdir, {"params": like.params, "ema": like.ema, "stats": like.stats}
  )
  return state


def test_a_pickle_makes_a_workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  sets, parts = random_sets(10, "nvlabs")
  arrays = {at: {k: t.read() for k, t in one.items()} for at, one in sets.items()}
  arrays["G"]["synthesis.b8.conv0.resample_filter"] = stylegan2_names.FILTER
  pathlib.Path("x.pkl").write_bytes(snapshot(arrays))
  import_weights("x.pkl", "w", "nvlabs", small())
  state = restored("w", 10)
  same(state["params"], {"gen": parts["gen"]["params"], "disc": parts["disc"]["params"]})
  same(state["ema"]["main"]["gen"], parts["ema"]["params"])
  same(state["stats"]["gen"], {k: parts["ema"][k] for k in ("average", "noise")})
  with pytest.raises(UserError, match="keeps its code"):
    export_weights("w", "y.pt")
  with pytest.raises(UserError, match="has no name for this net's mapping/emb"):
    export_weights("w", "y.pt", "stylegan2")
  assert not pathlib.Path("hacked").exists()


def test_diffusion_gans_pickles_hold_a_diffusion_beside(tmp_path, monkeypatch):
  """As its training loop saves them: with tables, times and a module by its class."""
  monkeypatch.chdir(tmp_path)
  sets, parts = random_sets(10, "nvlabs", timed=True)
  arrays = {at: {k: t.read() for k, t in one.items()} for at, one in sets.items()}
  assert arrays["D"]["mapping.embed.weight"].shape[1] == 10 + 1  # labels and t
  plain = lambda x: pickle.dumps(x, 3)[2:-1]
  state = {
    "_parameters": ORDERED,
    "_buffers": ORDERED,
    "_modules": mapping({"aug": name("training.diffusion", "Identity") + b")\x81" + plain(
      {"training": True, "_parameters": {}, "_modules": {}}
    ) + b"b"}),
    "p": plain(np.float64(0.5)),
    "betas": tensor(np.float32([0.1, 0.2])),
    "t_epl": plain(np.arange(64)),
  }  # fmt: skip
  body = {k: module(v) for k, v in arrays.items()} | {"diffusion": module({}, mapping(state))}
  body["progress"] = mapping({"cur_p": tensor(np.float32([0.5])), "best_fid": plain(3.19)})
  pathlib.Path("x.pkl").write_bytes(alone(mapping(body)))
  import_weights("x.pkl", "w", "nvlabs", small(timed=True))
  found = restored("w", 10, timed=True)
  same(found["params"], {"gen": parts["gen"]["params"], "disc": parts["disc"]["params"]})
  same(found["ema"]["main"]["gen"], parts["ema"]["params"])
  assert found["stats"]["augment"]["T"] == 10  # training begins anew
  assert not pathlib.Path("hacked").exists()


def test_the_ports_checkpoints_go_in_and_out(tmp_path):
  sets, parts = random_sets(0, "stylegan2")
  sets = {at: {k: t for k, t in one.items() if k != "latent_avg"} for at, one in sets.items()}
  tensor_files.write(tmp_path / "x.pt", sets)
  lines = []
  import_weights(tmp_path / "x.pt", tmp_path / "w", "stylegan2", small(0), log=lines.append)
  assert any("mean style" in line for line in lines)
  state = restored(tmp_path / "w", 0)
  same(state["params"]["gen"], parts["gen"]["params"])
  same(state["ema"]["main"]["gen"], parts["ema"]["params"])
  assert np.abs(state["stats"]["gen"]["average"]["w_avg"]).max() > 0
  export_weights(tmp_path / "w", tmp_path / "y.pt")
  back = tensor_files.sets(tmp_path / "y.pt")
  assert set(back) == {"g", "g_ema", "d", ""} and set(back[""]) == {"latent_avg"}
  for at in ("g_ema", "d"):
    for k, t in sets[at].items():
      np.testing.assert_array_equal(back[at][k].read(), t.read())
  with pytest.raises(UserError, match="want x.pt"):
    export_weights(tmp_path / "w", tmp_path / "y.safetensors")


def test_mistakes(tmp_path):
  def line(c, source, sets=None, **kw):
    with pytest.raises(UserError) as e:
      if sets:
        tensor_files.write(tmp_path / "x.pt", sets)
      import_weights(tmp_path / "x.pt", tmp_path / "w", source, c, **kw)
    return str(e.value)

  sets, _ = random_sets(0, "stylegan2")
  assert "no generator" in line(small(0), "stylegan2", {"d": sets["d"]})
  assert "needs a --config" in line(None, "nvlabs", sets["g"])
  assert "try stylegan2 or nvlabs" in line(small(0), "adm")
  assert "of a GAN's file all" in line(small(0), "stylegan2", key="g")
  assert "makes images of 8" in line(small(0), "stylegan2", size=16, sets=sets)
  assert "checkpoints of GANs" in line(
    config.load("configs/digits_adm.py:debug"), "stylegan2", sets["g"]
  )
  other = small(0)
  other.model.gen.w_dim = 24
  assert "file has [16, 16], config wants [24" in line(other, "stylegan2", sets)
  assert not (tmp_path / "w").exists()
