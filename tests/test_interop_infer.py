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
from jaxgen.build import build
from jaxgen.errors import UserError
from jaxgen.exchange import usual
from jaxgen.interop import diffusers, names
from jaxgen.interop.infer import infer

GOLDEN = pathlib.Path(__file__).parent / "golden"


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
  params, _ = jax.eval_shape(
      lambda b: model.init(core.on_device(b), jax.random.key(0)), batch)
  source = {"ddpm": "diffusers", "sr3": "sr3"}.get(
      file.partition("_")[0], "adm")
  return c, names.give(params["net"], source)


@pytest.mark.parametrize("name", [
    "adm_imagenet64", "adm_imagenet512", "adm_upsample512", "adm_classifier:64",
    "ddpm_256", "sr3:512"])
def test_published_networks_have_the_names_that_their_codes_give(name):
  """Of all tensors, as counted and digested there."""
  known = json.loads((GOLDEN / "torch_names.json").read_text())["networks"]
  lines = sorted(f"{k} {list(t.shape)}" for k, t in published(name)[1].items())
  digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
  assert [len(lines), digest] == known[name]


@pytest.mark.parametrize(("case", "want", "attend", "low_res", "size"), [
    ("adm_unet_class_updown", dict(
        width=32, mults=(1, 2), blocks=1, affine=True, updown=True,
        labels=1000, learned=True), (1,), False, None),
    ("adm_unet_plain_heads", dict(
        width=32, mults=(1, 2, 2), blocks=2, affine=False, updown=False,
        labels=0, learned=False), (2,), False, None),
    ("adm_upsampler_16_64", dict(
        width=32, mults=(1, 2, 3, 4), blocks=1, affine=True, updown=True,
        labels=1000, learned=True), (2,), True, None),
    ("adm_classifier_64", dict(
        width=64, mults=(1, 2, 3, 4), blocks=1, affine=True, updown=True,
        classes=1000), (1, 2, 3), False, 64)])
def test_golden_networks(case, want, attend, low_res, size):
  found = infer(shapes_of(case))
  assert found.net == want
  assert found[2:] == (attend, 3, low_res, size)
  assert found.kind == ("Classifier" if size else "UNet")


@pytest.mark.parametrize("name", [
    "adm_imagenet512", "adm_upsample512", "adm_classifier:64"])
def test_published_networks(name):
  c, tensors = published(name)
  found, want = infer(tensors), c.model.net
  assert want.name == f"nets.unet.{found.kind}"
  for key, value in found.net.items():
    assert value == want.get(key, {"affine": True, "labels": 0}.get(key)), key
  assert {c.data.size >> i for i in found.attend} == set(want.attend)
  assert found.low_res == ("cond" in c.model)


def test_without_a_config_the_usual_one_is_taken_and_said():
  c, tensors = published("adm_imagenet64")
  said = []
  made = usual(tensors, "adm", 64, said.append)
  same = made.model.net.to_dict()
  assert same.pop("affine") is True
  assert same == c.model.net.to_dict()
  assert made.to_dict() == c.to_dict() | {"model": made.model.to_dict()}
  line, = said
  for word in ("64 channels per head", "split_first=True", "Cosine"):
    assert word in line
  with pytest.raises(UserError, match="--size=64, or a --config"):
    usual(tensors, "adm", 0, said.append)
  with pytest.raises(UserError, match="diffusers needs a --config"):
    usual(tensors, "diffusers", 64, said.append)
  with pytest.raises(UserError, match="adm_upsample256"):
    usual(shapes_of("adm_upsampler_16_64"), "adm", 64, said.append)
  guide = usual(shapes_of("adm_classifier_64"), "adm", 0, said.append)
  assert guide.model.net.name == "nets.unet.Classifier"
  assert (guide.data.size, guide.model.net.attend) == (64, (32, 16, 8))
  plain = usual(shapes_of("adm_unet_plain_heads"), "adm", 32, said.append)
  assert plain.model.objective.name == "diffusion.objective.simple"
  assert (plain.data.classes, plain.model.classes) == (0, 0)


def test_other_checkpoints_are_told_apart():
  with pytest.raises(UserError, match="it lacks time_embed.0.weight"):
    infer(shapes_of("torch_diffusers_unet"))
  shapes = shapes_of("adm_unet_plain_heads")
  more = {"input_blocks.9.0.out_layers.3.weight": SimpleNamespace(
      shape=(64, 64, 3, 3))}
  with pytest.raises(UserError, match="10 blocks make no whole levels"):
    infer(shapes | more)
  shapes["input_blocks.0.0.weight"] = SimpleNamespace(shape=(32, 4, 3, 3))
  with pytest.raises(UserError, match="4 channels come in"):
    infer(shapes)


CIFAR = {  # what DDPM's model of CIFAR-10 has in its config.json
    "_class_name": "UNet2DModel", "act_fn": "silu", "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256], "center_input_sample": False,
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
    "in_channels": 3, "layers_per_block": 2, "norm_eps": 1e-06,
    "norm_num_groups": 32, "out_channels": 3, "sample_size": 32}


def test_config_json_is_held_against_the_config(tmp_path):
  net = config.load("configs/ddpm_cifar10.py").model.net.to_dict()
  diffusers.check(CIFAR, net)
  for key, value in {"norm_eps": 1e-5, "downsample_padding": 1,
                     "flip_sin_to_cos": True, "freq_shift": 0,
                     "attention_head_dim": 8, "norm_num_groups": 16}.items():
    with pytest.raises(UserError, match=f"config.json means {key}={value}"):
      diffusers.check(CIFAR | {key: value}, net)
  assert diffusers.facts(tmp_path / "x.bin") == {}
  (tmp_path / "config.json").write_text(json.dumps(CIFAR))
  assert diffusers.facts(tmp_path / "x.bin") == CIFAR
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(UserError, match="config.json cannot be read"):
    diffusers.facts(tmp_path / "x.bin")
