"""Small games that several tests play, in float32 on eight examples."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xla

from jaxgen import core
from jaxgen.config import build

BATCH = 8
# For what is compiled more often than it runs.
jit = functools.partial(
  jax.jit,
  compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)
UNET = dict(
  name="nets.unet.UNet", width=8, mults=(1,), blocks=1, attend=(), head=8, dropout=0.3, labels=4
)
EDM = dict(
  process=dict(name="diffusion.process.EDM"),
  precond=dict(name="diffusion.precond.edm"),
  draw_t=dict(name="diffusion.times.lognormal"),
  path=dict(name="diffusion.times.karras"),
  sampler=dict(name="diffusion.samplers.heun"),
)
DCGAN = dict(name="nets.convs.Generator", size=8, channels=1, width=4, classes=3)
MLP = dict(width=16, depth=2)
SPECS = {
  "unet": dict(name="models.diffusion.Diffusion", net=UNET, **EDM, classes=3, label_drop=0.5),
  "half": dict(
    name="models.diffusion.Diffusion",
    net=UNET | dict(dtype="bfloat16"),
    **EDM,
    classes=3,
    label_drop=0.5,
  ),
  "vae": dict(
    name="models.vae.VAE",
    classes=3,
    net=dict(name="nets.convs.Codec", size=8, channels=1, z_dim=4, width=8, classes=3),
  ),
  # Without batch norm, whose statistics are those of the part it sees.
  "gan": dict(
    name="models.gan.GAN",
    z_dim=2,
    gen=dict(name="nets.mlp.Generator", **MLP),
    disc=dict(name="nets.mlp.Discriminator", **MLP),
    rule=dict(name="adversarial.losses.nonsaturating"),
    penalties=[
      dict(name="models.gan.Penalty", fn=dict(name="adversarial.penalties.gradient_penalty"))
    ],
  ),
  "norms": dict(
    name="models.gan.GAN",
    gen=DCGAN,
    classes=3,
    z_dim=4,
    disc=dict(
      name="nets.convs.Discriminator", width=4, classes=3, norm=dict(name="nets.spectral.spectral")
    ),
    rule=dict(name="adversarial.losses.hinge"),
  ),
}


def batch(name: str, n: int = BATCH) -> core.Batch:
  """Random bytes and labels for images, Gaussians for points."""
  rng = np.random.default_rng(0)
  if name == "gan":
    return {"x": rng.normal(size=(n, 2)).astype(np.float32)}
  return {"x": rng.integers(0, 256, (n, 8, 8, 1), np.uint8), "y": np.arange(n, dtype=np.int32) % 3}


@functools.cache
def game(name: str, accumulate: int = 1, lr: float = 0.1):
  """-> model, a state with every weight away from zero, jitted step (SGD)."""
  model = build(SPECS[name])
  tx = {p.moves: optax.sgd(lr) for p in model.players}
  state = filled(
    jax.eval_shape(core.make_init(model, tx, ("main",)), batch(name), jax.random.key(0))
  )
  step = core.make_step(model, tx, {"main": lambda step: jnp.float32(0.5)}, accumulate)
  return model, state, jit(step, static_argnums=0)


def filled(state: core.State) -> core.State:
  """Numbers for the shapes: no layer is zero, and nothing was compiled."""
  rng = np.random.default_rng(1)

  def weights(path, leaf):
    x = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
    if path[-1].key in ("scale", "sigma", "var"):
      x = 1 + 0.1 * np.abs(x)
    return jnp.asarray(x, leaf.dtype)

  named = jax.tree_util.tree_map_with_path
  params = named(weights, state.params)
  return core.State(
    step=jnp.int32(0),
    params=params,
    stats=named(weights, state.stats),
    opt=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.opt),
    ema={p: {g: params[g] for g in ema} for p, ema in state.ema.items()},
    skips=jnp.zeros(2, jnp.int32),
  )


def same(a, b) -> bool:
  """Whether two pytrees are equal to the bit, NaNs and all."""
  pairs = jax.tree.leaves(
    jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b)
  )
  return all(pairs)


def apart(a, b) -> float:
  """Largest distance of two pytrees' leaves, relative to the leaf's norm."""

  def one(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.linalg.norm(x - y) / (np.linalg.norm(y) + 1e-12)

  return max(jax.tree.leaves(jax.tree.map(one, a, b)), default=0.0)


def on_four_devices(script: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays that a test's file saves, run as a script on four devices."""
  out = str(folder / "four.npz")
  command = [sys.executable, script, out]
  subprocess.run(command, check=True, timeout=300, env=os.environ | {"XLA_FLAGS": xla.devices(4)})
  return dict(np.load(out, allow_pickle=False))
