"""NVLabs' pickles, and the port's checkpoints of StyleGAN2, without their code.

The pickles here are put together from opcodes, as the reference's code and
PyTorch 1.7 write them; that of the reference itself read alike.
"""

import functools
import json
import pathlib
import struct
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_tensor_files import legacy

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
from jaxgen.interop.torchwrite import ORDERED, name, number, numbers, text
from jaxgen.nets.stylegan2 import Discriminator, Generator

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# Who runs this leaves a file behind.
SOURCE = "open('hacked', 'w').close()\nclass Net: pass\n"


# How these pickles are written.


def mapping(items):
  """A dict of pickled values."""
  return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def called(module, thing, *arguments):
  return name(module, thing) + b"(" + b"".join(arguments) + b"tR"


def binbytes(data):
  return b"B" + struct.pack("<I", len(data)) + data


def stored(values, index=None):
  """torch.save of a storage, as tensors' storages are pickled."""
  values = np.ascontiguousarray(values)
  index = index or (
    b"\x80\2("
    + text("storage")
    + name("torch", "FloatStorage")
    + text("0")
    + text("cpu")
    + number(values.size)
    + b"NtQ."
  )
  return legacy(index, values=struct.pack("<q", values.size) + values.tobytes())


def tensor(values, data=None, shape=None):
  shape = values.shape if shape is None else shape
  strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
  storage = called(
    "torch.storage", "_load_from_bytes", binbytes(stored(values) if data is None else data)
  )
  return called(
    "torch._utils",
    "_rebuild_tensor_v2",
    storage,
    number(0),
    numbers(shape),
    numbers(strides),
    b"\x89",
    ORDERED,
  )


def parameter(values):
  return called("torch._utils", "_rebuild_parameter", tensor(values), b"\x88", ORDERED)


BUFFERS = ("w_avg", "noise_const", "resample_filter")
SCALAR = called(
  "numpy.core.multiarray",
  "scalar",
  called("numpy", "dtype", text("f8"), b"K\0", b"K\1")
  + b"(K\3"
  + text("<")
  + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
  b"C\x08" + bytes(8),
)


def state_of(tensors):
  """A module's __dict__, of its tensors by name."""
  here = {k: v for k, v in tensors.items() if "." not in k}
  below = {}
  for k, v in tensors.items():
    first, _, rest = k.partition(".")
    if rest:
      below.setdefault(first, {})[rest] = v
  of = lambda kind: {k: kind(v) for k, v in here.items()}
  own = {k: v for k, v in of(parameter).items() if k not in BUFFERS}
  return mapping(
    {
      "training": b"\x89",
      "_parameters": ORDERED[:-2] + b")R"
      if not own
      else (
        ORDERED + b"(" + b"".join(text(k) + v for k, v in own.items()) + text("skipped") + b"Nu"
      ),
      "_buffers": mapping({k: v for k, v in of(tensor).items() if k in BUFFERS}),
      "_non_persistent_buffers_set": called("builtins", "set", b"]"),
      "_backward_hooks": ORDERED,
      "weight_gain": SCALAR,
      "_modules": mapping({k: module(v) for k, v in below.items()}),
      "_init_kwargs": name("dnnlib.util", "EasyDict") + b")\x81" + text("num_layers") + b"K\2s",
    }
  )


def module(tensors, state=None):
  """What torch_utils/persistence.py makes of a network."""
  return called(
    "torch_utils.persistence",
    "_reconstruct_persistent_obj",
    mapping(
      {
        "type": text("class"),
        "version": number(6),
        "module_src": text(SOURCE),
        "class_name": text("Net"),
        "state": state or state_of(tensors),
      }
    ),
  )


def pickled(body):
  return b"\x80\3" + body + b"."


def snapshot(sets):
  """A .pkl of several networks."""
  return pickled(
    mapping(
      {k: module(v) for k, v in sets.items()}
      | {"training_set_kwargs": mapping({"path": text("x")})}
    )
  )


WEIGHTS = {
  "mapping.w_avg": np.float32([1, 2]),
  "mapping.fc0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
  "synthesis.b4.conv1.noise_strength": np.array(3, np.float32),
}


def test_modules_are_read_by_their_tensors(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  more = {k: v + 1 for k, v in WEIGHTS.items()}
  pathlib.Path("x.pkl").write_bytes(snapshot({"G": WEIGHTS, "G_ema": more}))
  sets = tensor_files.sets("x.pkl")
  assert set(sets) == {"G", "G_ema"}
  for key, want in (("G", WEIGHTS), ("G_ema", more)):
    assert set(sets[key]) == set(want)
    for k, t in sets[key].items():
      assert t.shape == want[k].shape and t.dtype == np.float32
      np.testing.assert_array_equal(t.read(), want[k])
  with pytest.raises(UserError, match=r"--key.*G \(3 tensors\), G_ema \(3"):
    tensor_files.read("x.pkl")
  # EDM's: {"ema": ..}, some containers PyTorch's own, and nothing else of size.
  inner = (
    name("torch.nn.modules.container", "ModuleDict")
    + b")\x81"
    + (state_of({"w": np.float32([7])}) + b"b")
  )
  state = mapping({"_modules": mapping({"enc": inner})})
  pathlib.Path("y.pkl").write_bytes(
    pickled(mapping({"ema": module({}, state), "loss_fn": module({}), "augment_pipe": b"N"}))
  )
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
  for _ in range(n):
    twice = b"}(" + text("a") + b"h\0" + text("b") + b"h\0u"
    body += (
      b"0"
      + name("torch_utils.persistence", "_reconstruct_persistent_obj")
      + b"}"
      + text("state")
      + b"}"
      + text("_modules")
      + (twice + b"ss\x85R")
      + b"q\0"
    )
  return pickled(body)


HOSTILE = {
  "os": (pickled(EVIL), "asks for os.system: refused"),
  "posix": (
    pickled(called("posix", "system", text("touch hacked"))),
    "asks for posix.system: refused",
  ),
  "newer": (
    b"\x80\4\x8c\2os\x94\x8c\6system\x94\x93\x94\x8c\x0ctouch hacked\x94\x85\x94R\x94.",
    "asks for os.system: refused",
  ),
  "exec": (pickled(called("builtins", "exec", text(SOURCE))), "s.exec: refu"),
  "within": (pickled(module({}, mapping({"_modules": EVIL}))), "os.system"),
  "beside": (pickled(mapping({"G": module({"w": ONE}), "x": EVIL})), "refus"),
  "nested": (
    pickled(tensor(ONE, stored(ONE, b"\x80\2" + EVIL + b"."))),
    "asks for os.system: refused",
  ),
  "nested twice": (
    pickled(
      tensor(
        ONE,
        stored(
          ONE, b"\x80\2" + called("torch.storage", "_load_from_bytes", binbytes(stored(ONE))) + b"."
        ),
      )
    ),
    "asks for torch.storage._load_from_bytes: refused",
  ),
  "nested module": (pickled(tensor(ONE, stored(ONE, b"\x80\2" + module({}) + b"."))), "refused"),
  "nested dict": (pickled(tensor(ONE, stored(ONE, b"\x80\2}."))), "damaged"),
  "not nested": (pickled(tensor(ONE, b"\x80\2}." + bytes(80))), "not one of"),
  "short": (pickled(tensor(ONE, b"\x80\2}.")), "is damaged"),
  "text": (pickled(called("torch.storage", "_load_from_bytes", text("x" * 99))), "is damaged"),
  "class": (
    pickled(name("torch.nn.modules.conv", "Conv2d") + b")\x81"),
    "asks for torch.nn.modules.conv.Conv2d: refused",
  ),
  "older": (
    pickled(name("dnnlib.tflib.network", "Network") + b")\x81"),
    "asks for dnnlib.tflib.network.Network: refused",
  ),
  "outside": (pickled(text("x") + b"Q"), "is damaged"),
  "beyond": (pickled(tensor(ONE, shape=(2,))), "beyond its storage"),
  "cut": (snapshot({"G": WEIGHTS})[:-400], "is damaged"),
  "far": (pickled(b"B" + struct.pack("<I", 1 << 30)), "is damaged"),
  "rabbits": (bred(20), "larger module than any"),
  "meta": (
    pickled(called("torch_utils.persistence", "_reconstruct_persistent_obj", b"K\7")),
    "damaged",
  ),
  "arguments": (
    pickled(name("torch.nn.modules.container", "ModuleList") + b"}\x85\x81"),
    "is damaged",
  ),
  "key": (pickled(called("dnnlib.util", "EasyDict", b"]))\x86a")), "a key"),
  "number": (pickled(b"K\7"), "no tensors by name"),
  "nothing": (pickled(mapping({"G": module({})})), "no tensors by name"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_one_line(case, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  data, said = HOSTILE[case]
  pathlib.Path("x.pkl").write_bytes(data)
  with pytest.raises(UserError, match=said) as e:
    tensor_files.read("x.pkl")
  assert str(e.value).startswith("x.pkl ") and "\n" not in str(e.value)
  assert str(e.value).isprintable()
  assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_random_damage_never_ends_in_another_error(tmp_path):
  path, rng = tmp_path / "x.pkl", np.random.default_rng(0)
  whole, seen = snapshot({"G": WEIGHTS}), set()
  for i in range(200):
    data = bytearray(whole)
    if i % 2:
      data[rng.integers(len(data))] = rng.integers(256)
    else:
      at = rng.integers(len(data))
      del data[at : at + int(rng.integers(1, 50))]
    path.write_bytes(data)
    try:
      seen |= {t.read().shape for t in tensor_files.read(path).values()}
    except UserError as e:
      seen.add(str(e))
  assert len(seen) > 10


# The port.


def port():
  """-> the port's tensors by set, and its numbers."""
  golden = dict(np.load(GOLDEN / "torch_stylegan2_port.npz"))
  said = json.loads(str(golden["manifest"]))
  sets = {"": {"latent_avg": lazy(golden["latent_avg"][None])}}
  for at, key in (("g_ema", ""), ("d", "discriminator_")):
    sets[at] = {}
    for i, (n, shape, *kept) in enumerate(said[f"{key}state_dict"]):
      z = (
        np.random.Generator(np.random.PCG64([said[f"{key}seed"], i]))
        .standard_normal(shape)
        .astype(np.float32)
      )
      z *= np.float32((100 if n.startswith("style") else 1) if len(shape) > 1 else 0.1)
      if kept:
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
  taken = gans.take(sets, trees, "stylegan2")
  assert set(taken) == {"ema", "disc"}
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())
  with jax.default_matmul_precision("highest"):
    ws = gen.apply(taken["ema"], z, None, 0.7, method="map")
    near(ws, golden["latent"])
    made = gen.apply(taken["ema"], ws, method="synthesize")
    near(made.transpose(0, 3, 1, 2), golden["generated"])
    near(disc.apply(taken["disc"], x)[:, None], golden["logits"])
  # And out again, filters and all.
  back = gans.give(taken, "stylegan2")
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
  said, tensors = json.loads(str(golden["manifest"])), {}
  for i, (n, shape, *kept) in enumerate(said["state_dict"]):
    z = (
      np.random.Generator(np.random.PCG64([said["seed"], i]))
      .standard_normal(shape)
      .astype(np.float32)
    )
    z = (
      z / np.float32(np.sqrt(np.prod(shape[1:])))
      if len(shape) > 1
      else np.float32(0.1) * z + np.float32(n.endswith(".weight"))
    )
    tensors[f"model.{n}"] = lazy(np.ones(shape, np.float32) if kept else z)
  net = build(
    dict(
      name="nets.unet.UNet",
      width=64,
      mults=(1, 2),
      blocks=1,
      attend=(4,),
      head=64,
      labels=10,
      updown=True,
      least=4,
    )
  )
  x, args = golden["x"].transpose(0, 2, 3, 1), (golden["t"], golden["y"])
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, *args)["params"]
  params = names.take(edm.as_adm(tensors), shapes, "adm")
  out = jax.jit(net.apply)({"params": params}, x, *args)
  np.testing.assert_allclose(
    out.transpose(0, 3, 1, 2), golden["output"], rtol=0, atol=2e-5 * np.abs(golden["output"]).max()
  )
  found = infer(edm.as_adm(tensors))
  assert (found.net["mults"], found.net["blocks"], found.net["labels"]) == ((1, 2), 1, 10)
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


def small(classes=10):
  c = config.load("configs/stylegan2.py:debug")
  c.data.classes = c.model.classes = classes
  c.model.gen.classes = c.model.disc.classes = classes
  return c


@functools.cache
def random_sets(classes, source):
  """Other weights for each set -> sets, and our trees of them."""
  model, rng = build(small(classes).model), np.random.default_rng(0)
  batch = {"x": jnp.zeros((1, 8, 8, 1)), "y": jnp.zeros(1, jnp.int32)}
  params, stats = jax.eval_shape(lambda b: model.init(b, jax.random.key(0)), batch)
  trees = {g: {"params": params[g]} | stats[g] for g in params}
  made = {
    part: jax.tree.map(
      lambda s: rng.standard_normal(s.shape).astype(np.float32), trees[gans.GROUP[part]]
    )
    for part in ("gen", "ema", "disc")
  }
  how, sets = gans.GANS[source], {}
  for part, tree in made.items():
    sets[how.sets[part]] = names.spell(how.entries(gans.GROUP[part], tree), tree)
  return sets, made


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def restored(workdir, classes):
  like = Experiment.of(small(classes)).abstract(
    DataSpec("digits", (8, 8, 1), classes), sharding.make_mesh()
  )
  _, state, _ = restore_subset(
    workdir, {"params": like.params, "ema": like.ema, "stats": like.stats}
  )
  return state


def test_a_pickle_makes_a_workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  sets, made = random_sets(10, "nvlabs")
  arrays = {at: {k: t.read() for k, t in one.items()} for at, one in sets.items()}
  arrays["G"]["synthesis.b8.conv0.resample_filter"] = stylegan2_names.FILTER
  pathlib.Path("x.pkl").write_bytes(snapshot(arrays))
  import_weights("x.pkl", "w", "nvlabs", small())
  state = restored("w", 10)
  same(state["params"], {"gen": made["gen"]["params"], "disc": made["disc"]["params"]})
  same(state["ema"]["main"]["gen"], made["ema"]["params"])
  same(state["stats"]["gen"], {k: made["ema"][k] for k in ("average", "noise")})
  with pytest.raises(UserError, match="keeps its code"):
    export_weights("w", "y.pt")
  with pytest.raises(UserError, match="has no name for this net's mapping/emb"):
    export_weights("w", "y.pt", "stylegan2")
  assert not pathlib.Path("hacked").exists()


def test_the_ports_checkpoints_go_in_and_out(tmp_path):
  sets, made = random_sets(0, "stylegan2")
  sets = {at: {k: t for k, t in one.items() if k != "latent_avg"} for at, one in sets.items()}
  tensor_files.write(tmp_path / "x.pt", sets)
  said = []
  import_weights(tmp_path / "x.pt", tmp_path / "w", "stylegan2", small(0), say=said.append)
  assert any("mean style" in line for line in said)
  state = restored(tmp_path / "w", 0)
  same(state["params"]["gen"], made["gen"]["params"])
  same(state["ema"]["main"]["gen"], made["ema"]["params"])
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
