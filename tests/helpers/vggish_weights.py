"""Waves and weights of which tests/golden/vggish.npz has the references' numbers.

That file is of torchvggish 0.2 on PyTorch 2.13: `mel` by its mel_features.py,
`embeddings` by its VGG without the last ReLU, of these.
"""

import numpy as np

SHAPES = {
  "features.0": (64, 1, 3, 3),
  "features.3": (128, 64, 3, 3),
  "features.6": (256, 128, 3, 3),
  "features.8": (256, 256, 3, 3),
  "features.11": (512, 256, 3, 3),
  "features.13": (512, 512, 3, 3),
  "embeddings.0": (4096, 12_288),
  "embeddings.2": (4096, 4096),
  "embeddings.4": (128, 4096),
}


def waves():
  """Two clips of 2.1 s at 16 kHz: a rising tone with noise; one half silence."""
  t = np.arange(33_600) / 16_000
  noise = np.random.default_rng(0).standard_normal(len(t))
  first = 0.5 * np.sin(2 * np.pi * (100 + 1500 * t) * t) + 0.05 * noise
  return np.stack([first, np.where(t < 1, 0, 0.3 * noise)]).clip(-1, 1)


def state_dict():
  """Weights by torchvggish's names, as large as keeps activations alike."""
  tensors = {}
  for i, (name, shape) in enumerate(SHAPES.items()):
    rng = np.random.default_rng(i)
    bound = np.float32(np.sqrt(6 / np.prod(shape[1:])))
    tensors[f"{name}.weight"] = (2 * rng.random(shape, np.float32) - 1) * bound
    tensors[f"{name}.bias"] = 0.1 * rng.random(shape[0], np.float32)
  return tensors
