"""Names in configs become objects, and slips become advice."""

import functools

import pytest
from ml_collections import ConfigDict

from jaxgen.config import MOVED, build, check_config, find
from jaxgen.diffusion import precond, process
from jaxgen.errors import UserError
from jaxgen.models.vae import VAE
from jaxgen.nets.mlp import Codec
from jaxgen.nets.unet import UNet

VAE_SPEC = dict(name="models.vae.VAE", beta=2.0, net=dict(name="nets.mlp.Codec", z_dim=3))


@pytest.mark.parametrize("wrap", [dict, ConfigDict])
def test_children_come_first(wrap):
  vae = build(wrap(VAE_SPEC))
  assert isinstance(vae, VAE) and isinstance(vae.net, Codec)
  assert vae.net.z_dim == 3 and vae.beta == 2.0
  assert build(wrap(VAE_SPEC), beta=3.0).beta == 3.0


def test_functions_stay_functions():
  edm = build(dict(name="diffusion.precond.edm", sigma_data=0.7))
  assert isinstance(edm, functools.partial) and edm.func is precond.edm
  noise = process.EDM()(2.0)
  assert edm(noise) == precond.edm(noise, sigma_data=0.7)
  bare = build(dict(name="diffusion.precond.vp"))
  assert bare.func is precond.vp and not bare.keywords


def test_lists_become_tuples():
  net = build(dict(name="nets.unet.UNet", mults=[1, 2], attend=[]))
  assert net.mults == (1, 2) and net.attend == ()
  assert hash(net) == hash(UNet(mults=(1, 2), attend=()))
  deep = build([[1, [2]], dict(a=[3])])
  assert deep == ((1, (2,)), dict(a=(3,)))


@pytest.mark.parametrize("plain", [1, 2.5, "text", None, True])
def test_what_has_no_name_is_itself(plain):
  assert build(plain) is plain
  assert build(dict(a=plain)) == dict(a=plain)


@pytest.mark.parametrize(
  "spec, says",
  [
    (dict(name="nets.unet.UNet", widht=3), "no argument 'widht'.*'width'"),
    (dict(name="nets.unet.UNet", zzz=3), "no argument 'zzz'.*blocks"),
    (dict(name="nets.unet.UNet", parent=None), "no argument 'parent'"),
    (dict(name="diffusion.precond.edm", sigma=1.0), "'sigma'.*'sigma_data'"),
    (dict(name="nets.unet.Unet"), "no 'Unet'.*'UNet'"),
    (dict(name="nets.unett.UNet"), "no module jaxgen.nets.unett"),
    (dict(name="nets.unet"), "'unet'"),
    (dict(name="UNet"), "name='UNet'.*nets, "),
    (dict(name=""), "want"),
    (dict(name="nets..unet.UNet"), "want"),
    (dict(name="..os.system"), "want"),
    (dict(name=3), "name=3"),
    (dict(name="models.vae.VAE"), "models.vae.VAE needs net"),
    (dict(name="models.gan.GAN", gen=1), "needs disc, rule"),
  ],
)
def test_slips_are_advice(spec, says):
  with pytest.raises(UserError, match=says):
    build(spec)
  with pytest.raises(UserError, match=says):
    build(dict(name="models.vae.VAE", net=[dict(deep=spec)]))


def test_linens_own_fields_are_not_advertised():
  with pytest.raises(UserError) as e:
    build(dict(name="nets.convs.Encoder", zzz=3))
  known = str(e.value).partition("it knows ")[2].split(", ")
  assert sorted(known) == ["dtype", "out", "width"]


@pytest.mark.parametrize(
  "path",
  [
    "checkpoint.os",
    "train.jax",
    "checkpoint.json",
    "models.gan.Player",
    "nets.unet.Dropout",
    "nets.unet.nn",
    "models.vae.Array",
    "build.Any",
    "nets.unet.__builtins__",
    "nets.unet.__loader__",
    "nets.__path__",
    "train.os.system",
    "checkpoint.os.path.join",
    "build.find.__globals__",
    "models.vae.VAE.sample",
    "ema._private",
    "diffusion.process._noise",
    "nets.unet.ZERO",
    # These write files.
    "checkpoint.Checkpoints",
    "log.Logger",
    "train.train",
    "cli.main",
  ],
)
def test_only_our_own_things_have_names(path):
  with pytest.raises(UserError):
    find(path)


def test_no_name_runs_a_program(monkeypatch):
  ran = []
  monkeypatch.setattr("jaxgen.cli.main", lambda: ran.append(True))
  with pytest.raises(UserError):
    find("__main__.main")
  assert not ran


def test_a_missing_dependency_is_not_a_missing_module(monkeypatch, tmp_path):
  import jaxgen.nets

  (tmp_path / "lacking.py").write_text("import no_such_dependency\n")
  monkeypatch.setattr(jaxgen.nets, "__path__", [str(tmp_path)])
  with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
    build(dict(name="nets.lacking.Net"))


def test_names_in_old_checkpoints_are_found():
  for old, new in MOVED.items():
    assert find(old) is find(new), old
    saved = {"model": {"sampler": {"name": old}}}
    check_config(saved, {"model": {"sampler": {"name": new}}})
    with pytest.raises(UserError, match="model.sampler.name"):
      check_config(saved, {"model": {"sampler": {"name": "nets.mlp.MLP"}}})
