"""VGGish: the network that the Fréchet audio distance is defined by.

Hershey et al. 2017; Kilgour et al. 2019 ("Fréchet Audio Distance", Sec. 3) compare
its embeddings. These are of 128 numbers, before any ReLU, and before the
whitening and the rounding to bytes of AudioSet's published embeddings.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

Array = jax.Array
FRAMES, BANDS, WIDTH = 96, 64, 128
# Channels of convolutions; between groups a pool halves both sides.
GROUPS = ((64,), (128,), (256, 256), (512, 512))
HIDDEN = (4096, 4096)
# Of harritaylor/torchvggish: features.N are the convolutions, of a list with
# ReLUs and pools among them; embeddings.N the dense layers.
CONVS, DENSE = (0, 3, 6, 8, 11, 13), (0, 2, 4)


class VGGish(nn.Module):
  """Log-mel patches [B, 96, 64] -> embeddings [B, 128]; see `audio.patches`."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x, i = x[..., None], 0
    for group in GROUPS:
      for width in group:
        conv = nn.Conv(width, (3, 3), precision="highest", name=f"conv_{i}")
        x, i = nn.relu(conv(x)), i + 1
      x = nn.max_pool(x, (2, 2), (2, 2))
    x = x.reshape(len(x), -1)  # frames first, channels last
    for i, width in enumerate(HIDDEN):
      x = nn.relu(nn.Dense(width, precision="highest", name=f"dense_{i}")(x))
    return nn.Dense(WIDTH, precision="highest", name=f"dense_{len(HIDDEN)}")(x)


def converted(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  """Parameters, of tensors by torchvggish's names.

  Others, such as those of the whitening, are left alone.

  Raises:
    KeyError: One is missing. ValueError: One has another shape.
  """
  shapes = jax.eval_shape(
    VGGish().init, jax.random.key(0), jax.ShapeDtypeStruct((1, FRAMES, BANDS), np.float32)
  )["params"]
  modules = {f"conv_{i}": f"features.{n}" for i, n in enumerate(CONVS)}
  modules |= {f"dense_{i}": f"embeddings.{n}" for i, n in enumerate(DENSE)}
  params = {}
  for own, theirs in modules.items():
    kernel = np.asarray(tensors[f"{theirs}.weight"], np.float32)
    kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
    params[own] = {"kernel": kernel, "bias": np.asarray(tensors[f"{theirs}.bias"], np.float32)}
    for name, value in params[own].items():
      if value.shape != shapes[own][name].shape:
        raise ValueError(f"{theirs} has the shape {list(value.shape)}, in its layout here")
  return params
