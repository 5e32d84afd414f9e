"""What a checkpoint's names and shapes tell of its network."""

import functools
import hashlib
import json
import pathlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxgen import config, core
from jaxgen.config import build
from jaxgen.convert.published import NOTHING, PUBLISHED, Facts, compare, usual
from jaxgen.errors import UserError
from jaxgen.interop import diffusers, names
from jaxgen.interop.infer import infer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def shapes_of(case):
  """Their names and shapes, of a golden case."""
  manifest = json.loads(str(np.load(GOLDEN / f"{case}.npz")["manifest"]))
  return {k: SimpleNamespace(shape=s) for k, s in manifest["state_dict"]}


@functools.cache
def published(name):
  """-> a config, and its net's weights as their code would save them."""
  file, _, arg = name.partition(":")
  c = config.load(f"configs/{file}.py" + (f":{arg}" if arg else ""))
  size = c.data.size
  batch = {"x": jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)}
  if c.data.classes:
    batch["y"] = jax.ShapeDtypeStruct((1,), np.int32)
  model = build(c.model)
  params, _ = jax.eval_shape(lambda b: model.init(core.on_device(b), jax.random.key(0)), batch)
  source = {"ddpm": "diffusers", "sr3": "sr3"}.get(file.partition("_")[0], "adm")
  return c, names.give(params["net"], source)


@pytest.mark.parametrize("name", [
  "adm_imagenet64", "adm_imagenet512", "adm_upsample512", "adm_classifier:64",
  "ddpm_256", "sr3:512", "iddpm", "iddpm:cifar10", "iddpm:imagenet64_cond",
  "iddpm:upsample", "iddpm:lsun",
])  # fmt: skip
def test_published_networks_have_the_names_that_their_codes_give(name):
  """Of all tensors, as counted and digested there."""
  networks = json.loads((GOLDEN / "torch_names.json").read_text())["networks"]
  lines = sorted(f"{k} {list(t.shape)}" for k, t in published(name)[1].items())
  digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
  assert [len(lines), digest] == networks[name]


UP = dict(blocks=1, affine=True, updown=True)
GOLDEN_NETS = {  # -> what is inferred: net, attend, low_res, size
  "adm_unet_class_updown": (
    UP | dict(width=32, mults=(1, 2), labels=1000, learned=True), (1,), False, None),
  "adm_unet_plain_heads": (
    dict(width=32, mults=(1, 2, 2), blocks=2, affine=False, updown=False, labels=0, learned=False),
    (2,), False, None),
  "adm_upsampler_16_64": (
    UP | dict(width=32, mults=(1, 2, 3, 4), labels=1000, learned=True), (2,), True, None),
  "adm_classifier_64": (
    UP | dict(width=64, mults=(1, 2, 3, 4), classes=1000), (1, 2, 3), False, 64),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN_NETS)
def test_golden_networks(case):
  net, attend, low_res, size = GOLDEN_NETS[case]
  kind = "Classifier" if size else "UNet"
  assert infer(shapes_of(case)) == (kind, net, attend, 3, low_res, size)


@pytest.mark.parametrize("name", ["adm_imagenet512", "adm_upsample512", "adm_classifier:64"])
def test_published_networks(name):
  c, tensors = published(name)
  network, want = infer(tensors), c.model.net
  assert want.name == f"nets.unet.{network.kind}"
  for key, value in network.net.items():
    assert value == want.get(key, {"affine": True, "labels": 0}.get(key)), key
  assert {c.data.size >> i for i in network.attend} == set(want.attend)
  assert network.low_res == ("cond" in c.model)


@pytest.mark.parametrize(("file", "name"), PUBLISHED.items())
def test_published_checkpoints_are_known_by_their_shapes(file, name):
  """No flag, no config: heads, their order, noise and size are theirs."""
  c, tensors = published(name)
  lines = []
  assert usual(tensors, "adm", 0, NOTHING, lines.append).to_dict() == c.to_dict()
  (line,) = lines
  assert file in line and "--attention_order" in line
  # The same shapes, of another size: then it is none of them.
  if infer(tensors).kind == "UNet":
    with pytest.raises(UserError, match="--heads|a --config"):
      usual(tensors, "adm", 2 * c.data.size, NOTHING, lines.append)


def test_configs_of_one_another_do_not_have_equal_shapes():
  networks = [str(infer(published(name)[1])) for name in PUBLISHED.values()]
  assert len(set(networks)) == len(PUBLISHED)


PLAIN = "adm_unet_plain_heads"
LEGACY = dict(attention_order="legacy", schedule="linear")
REFUSED = {
  "nothing": ({}, "--heads=4 .* --head_channels=64 .*--attention_order.*--schedule"),
  "heads": (LEGACY, "how many heads"),
  "order": (dict(heads=4, schedule="linear"), "order of their channels"),
  "order up": (dict(heads=1, heads_up=2, schedule="linear"), "the order of"),
  "noise": (dict(heads=4, attention_order="new"), "say the noise: --sched"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_shape_tells_is_not_guessed(case):
  facts, why = REFUSED[case]
  with pytest.raises(UserError, match=why):
    usual(shapes_of(PLAIN), "adm", 32, Facts(**facts), print)


@pytest.mark.parametrize(
  ("facts", "want"),
  [
    (LEGACY | {"heads": 4}, (4, None, False, "Linear")),
    (LEGACY | {"heads": 4, "heads_up": 2}, (4, 2, False, "Linear")),
    (dict(heads=1, schedule="cosine"), (1, None, False, "Cosine")),
    (dict(head_channels=16, attention_order="new", schedule="cosine"), (16, None, True, "Cosine")),
  ],
)
def test_facts_are_in_the_config(facts, want):
  lines = []
  c = usual(shapes_of(PLAIN), "adm", 32, Facts(**facts), lines.append)
  net, noise = c.model.net, c.model.process.name.rpartition(".")[2]
  heads = net.head if "head_channels" in facts else net.heads
  assert (heads, net.get("heads_up"), net.split_first, noise) == want
  assert c.model.objective.name == "diffusion.objective.simple"
  assert (c.data.classes, c.model.classes) == (0, 0)
  assert lines[0].count("heads") + lines[0].count("per head") >= 1
  build(c.model.net)


def test_without_a_config():
  with pytest.raises(UserError, match="--size=64, or a --config"):
    usual(shapes_of(PLAIN), "adm", 0, NOTHING, print)
  with pytest.raises(UserError, match="diffusers needs a --config"):
    usual(shapes_of(PLAIN), "diffusers", 64, NOTHING, print)
  with pytest.raises(UserError, match="adm_upsample256"):
    usual(shapes_of("adm_upsampler_16_64"), "adm", 64, NOTHING, print)
  # Of heads, classifiers have no choice.
  guide = usual(shapes_of("adm_classifier_64"), "adm", 0, Facts(schedule="cosine"), print)
  assert guide.model.net.name == "nets.unet.Classifier"
  assert (guide.data.size, guide.model.net.attend) == (64, (32, 16, 8))


@pytest.mark.parametrize(
  ("facts", "why"),
  [
    (dict(heads=0), "--heads=0: want 1"),
    (dict(heads_up=-1), "want 1"),
    (dict(attention_order="old"), "new or legacy"),
    (dict(schedule="sqrt"), "linear or cosine"),
    (dict(heads=4, head_channels=64), "leave --heads"),
    (dict(heads_up=4, head_channels=64), "leave --heads"),
  ],
)
def test_facts_that_cannot_be(facts, why):
  with pytest.raises(UserError, match=why):
    Facts(**facts)


def test_facts_in_a_config():
  """They rule; where heads differ from a published twin's, a line says so."""
  c, tensors = published("adm_imagenet128")
  c, lines = c.copy_and_resolve_references(), []
  compare(tensors, c, lines.append)
  assert not lines
  Facts(head_channels=64, attention_order="new").apply(c)
  assert (c.model.net.heads, c.model.net.head, c.model.net.split_first) == (None, 64, True)
  compare(tensors, c, lines.append)
  assert "128x128_diffusion.pt, which has 4 heads, legacy" in lines[0]
  guide, _ = published("adm_classifier:64")
  guide = guide.copy_and_resolve_references()
  with pytest.raises(UserError, match="no way up"):
    Facts(heads_up=2).apply(guide)
  Facts(head_channels=32).apply(guide)
  build(guide.model.net)
  with pytest.raises(UserError, match="are for U-Nets"):
    Facts(heads=2).apply(config.load("configs/stylegan2.py:debug"))


def test_other_checkpoints_are_told_apart():
  with pytest.raises(UserError, match="it lacks time_embed.0.weight"):
    infer(shapes_of("torch_diffusers_unet"))
  shapes = shapes_of("adm_unet_plain_heads")
  more = {"input_blocks.9.0.out_layers.3.weight": SimpleNamespace(shape=(64, 64, 3, 3))}
  with pytest.raises(UserError, match="10 blocks make no whole levels"):
    infer(shapes | more)
  shapes["input_blocks.0.0.weight"] = SimpleNamespace(shape=(32, 4, 3, 3))
  with pytest.raises(UserError, match="4 channels come in"):
    infer(shapes)


CIFAR = {  # what DDPM's model of CIFAR-10 has in its config.json
  "_class_name": "UNet2DModel",
  "act_fn": "silu",
  "attention_head_dim": None,
  "block_out_channels": [128, 256, 256, 256],
  "center_input_sample": False,
  "downsample_padding": 0,
  "flip_sin_to_cos": False,
  "freq_shift": 1,
  "in_channels": 3,
  "layers_per_block": 2,
  "norm_eps": 1e-06,
  "norm_num_groups": 32,
  "out_channels": 3,
  "sample_size": 32,
}


def test_config_json_is_held_against_the_config(tmp_path):
  net = config.load("configs/ddpm_cifar10.py").model.net.to_dict()
  diffusers.check(CIFAR, net)
  for key, value in {
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "attention_head_dim": 8,
    "norm_num_groups": 16,
    "act_fn": "gelu",
    "center_input_sample": True,
    "mid_block_scale_factor": 2,
    "attn_norm_num_groups": 8,
    "time_embedding_type": "fourier",
  }.items():
    with pytest.raises(UserError, match=f"config.json means {key}={value}"):
      diffusers.check(CIFAR | {key: value}, net)
  cases = (dict(heads=4), 64), (dict(heads=1, heads_up=2), None), (dict(heads=None, head=64), 8)
  for heads, channels in cases:
    with pytest.raises(UserError, match="means attention_head_dim="):
      diffusers.check(CIFAR | {"attention_head_dim": channels}, net | heads)
  diffusers.check(CIFAR | {"attention_head_dim": 8}, net | dict(heads=None, head=8))
  assert diffusers.facts(tmp_path / "x.bin") == {}
  (tmp_path / "config.json").write_text(json.dumps(CIFAR))
  assert diffusers.facts(tmp_path / "x.bin") == CIFAR
  for broken in ("{", "[" * 100_000):
    (tmp_path / "config.json").write_text(broken)
    with pytest.raises(UserError, match="config.json cannot be read"):
      diffusers.facts(tmp_path / "x.bin")
