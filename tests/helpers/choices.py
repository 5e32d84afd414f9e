"""A result of `choose` to draw and to judge: three families, five rounds.

No training stands behind it. The diffusion model starts slowly and ends best,
the GAN leads early and collapses, the VAE is quick, blurry and has all modes.
Run as a script it writes the page, to be looked at:

  python tests/helpers/choices.py /tmp/choice.html
"""

import functools
import pathlib
import sys

import numpy as np

from jaxgen.monitor import pictures
from jaxgen.report import verdict
from jaxgen.report.page import render

F = "photos-self"
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)
REAL = {"frechet": 1.64, "precision": 0.87, "recall": 0.86, "density": 1.01, "coverage": 0.95}
BASELINE = {"frechet": 44.1, "precision": 0.2, "recall": 0.41, "density": 0.1, "coverage": 0.2}
# By family: (name, samples a second, parameters, images in its whole share,
# metrics by round).
FAMILIES = {
  "Diffusion": (
    *("images_diffusion", 42.0, 9_412_355, 1.12e6),
    {
      "frechet": (61.0, 33.0, 16.2, 9.1, 6.05),
      "precision": (0.21, 0.38, 0.61, 0.74, 0.79),
      "recall": (0.35, 0.52, 0.66, 0.71, 0.74),
      "density": (0.12, 0.29, 0.55, 0.78, 0.88),
      "coverage": (0.18, 0.39, 0.64, 0.79, 0.86),
    },
  ),
  "GAN": (
    *("images_gan", 3_150.0, 7_204_612, 2.46e6),
    {
      "frechet": (38.0, 19.5, 11.4, 10.2, 24.8),
      "precision": (0.42, 0.61, 0.72, 0.77, 0.81),
      "recall": (0.31, 0.46, 0.58, 0.6, 0.1),
      "density": (0.35, 0.6, 0.8, 0.93, 0.97),
      "coverage": (0.33, 0.52, 0.69, 0.73, 0.31),
    },
  ),
  "VAE": (
    *("images_vae", 4_980.0, 5_870_019, 3.3e6),
    {
      "frechet": (55.0, 41.0, 34.0, 30.5, 29.0),
      "precision": (0.22, 0.28, 0.33, 0.35, 0.36),
      "recall": (0.5, 0.61, 0.68, 0.72, 0.73),
      "density": (0.16, 0.21, 0.26, 0.28, 0.29),
      "coverage": (0.35, 0.52, 0.68, 0.79, 0.84),
    },
  ),
}
HEALTH = {
  "Diffusion": ("net/grad_norm",),
  "GAN": ("disc/accuracy", "gen/diversity", "gen/grad_norm"),
  "VAE": ("net/grad_norm",),
}
WARNINGS = {
  "GAN": [
    "Step 26,400: The discriminator is right 99.3% of the time: the generator learns next to "
    "nothing from it. Try a lower discriminator learning rate, a stronger gradient penalty (r1), "
    "or augmentation if data are few."
  ]
}
COPIES = {"Diffusion": 0.012, "GAN": 0.071, "VAE": 0.0}
SECONDS = 600.0  # of a share


def results(seed=0, rounds=5):
  """The results after so many rounds; means differ a little by seed."""
  rng = np.random.default_rng(seed)
  report = {
    "dataset": "photos",
    "features": F,
    "judge": {"reference": "2,310 real training images of photos", "protocol": "sets of 257"},
    "created": "2025-01-02T03:04:05+00:00",
    "machine": {"device": "CPU", "cores": 2},
    "versions": {"jax": "0.9.9", "jaxgen": "0.1.0"},
    "counts": {"samples": 1028, "real": 257, "seeds": 1},
    "budget": {
      **{"text": "30m", "kind": "time", "amount": 1800.0},
      **{"share": SHARES[rounds - 1], "rounds": SHARES},
    },
    "survey": [
      "2,567 images of 64x64 to 512x512, colour; 3 files skipped",
      "works at 32x32: the largest size that the budget can train",
      "257 images held out (10%); 14 duplicates on one side",
    ],
    "real": {"grid": "real", "metrics": {f"{k}@{F}": v for k, v in REAL.items()}},
    "baseline": {"metrics": {f"{k}@{F}": v for k, v in BASELINE.items()}},
    "rows": [row(rng, family, rounds) for family in FAMILIES],
  }
  return report | {"verdict": verdict.answer(report), "changes": verdict.changes(report)}


def row(rng, family, rounds):
  """One model after so many rounds."""
  name, rate, params, images, curves = FAMILIES[family]
  seen = [one_round(rng, name, i, images, curves) for i in range(rounds)]
  newest = seen[-1]
  workdir = f"choice/{name}"
  return {
    **{"name": name, "family": family, "config": name, "workdir": workdir, "params": params},
    **{"commands": [f"jaxgen train --config {name}:32-small --workdir {workdir}"]},
    **{"train_seconds": newest["seconds"], "train_images": newest["images"]},
    **{"step": newest["step"], "peak_memory": 3 << 29, "grid": newest["grid"]},
    **{k: newest[k] for k in ("metrics", "spread", "intervals")},
    "settings": {"steps": 16} if family == "Diffusion" else {},
    **{"samples_per_second": rate, "nfe": 31 if family == "Diffusion" else 1},
    "sampling": sweep(newest["metrics"], rate) if family == "Diffusion" else [],
    "curves": logs(rng, family, newest["step"]),
    "warnings": WARNINGS.get(family, []) if rounds == 5 else [],
    "copies": {"share": COPIES[family], "floor": 0.008, "grid": f"{name}-copies"},
    "bits_per_dim": {"VAE": 4.31, "Diffusion": 3.92}.get(family),
    **{"stopped": "", "rounds": seen},
    "next": [
      f"jaxgen train --config {name}:32-small --workdir {workdir} --config.steps 400000",
      f"jaxgen sample --workdir {workdir} --num 64 --out samples",
      f"jaxgen evaluate --workdir {workdir} --judge choice/judge",
      f"jaxgen convert --workdir {workdir} --to {name}.safetensors",
    ],
  }


def one_round(rng, name, i, images, curves):
  """Metrics with noise of a hundredth, and an interval of some hundredths."""
  metrics, spread, intervals = {}, {}, {}
  for key, values in curves.items():
    mean = values[i] * (1 + 0.01 * rng.standard_normal())
    std = 0.03 * mean
    half = 3.18 * std / 2  # t of 4 sets
    metrics[f"{key}@{F}"], spread[f"{key}@{F}"] = mean, std
    intervals[f"{key}@{F}"] = [mean - half, mean + half]
  return {
    **{"share": SHARES[i], "seconds": SECONDS * SHARES[i], "images": int(images * SHARES[i])},
    **{"flops": 3e9 * images * SHARES[i], "step": int(images * SHARES[i] / 64)},
    **{"metrics": metrics, "spread": spread, "intervals": intervals, "grid": f"{name}-{i}"},
  }


def sweep(metrics, rate):
  """Quality and diversity by number of steps; 16 were judged."""
  entries = []
  for steps, worse, narrower in ((4, 3.1, 0.7), (8, 1.35, 0.93), (16, 1.0, 1.0), (32, 0.97, 1.01)):
    scores = {f"frechet@{F}": worse, f"coverage@{F}": narrower, f"precision@{F}": narrower}
    entries.append(
      {
        **{"label": f"{steps} steps", "knobs": {"steps": steps}, "nfe": 2 * steps - 1},
        "samples_per_second": rate * 16 / steps,
        "metrics": {k: metrics[k] * v for k, v in scores.items()},
      }
    )
  return entries


def logs(rng, family, steps):
  """Curves of the log: losses that fall, a discriminator that comes to know."""
  x = np.linspace(steps / 60, steps, 60)
  noise = lambda: 0.03 * rng.standard_normal(60)
  loss = {"net/loss": 0.2 + np.exp(-5 * x / steps) + noise()}
  if family == "GAN":
    loss = {"disc/loss": 1.2 - 0.8 * (x / steps) ** 3 + noise(), "gen/loss": 0.8 + x / steps}
  shapes = {
    "disc/accuracy": 0.75 + 0.245 * (x / steps) ** 2,
    "gen/diversity": 0.9 - 0.6 * (x / steps) ** 6 + noise(),
  }
  health = {k: shapes.get(k, 1 + 2 * np.exp(-8 * x / steps) + noise()) for k in HEALTH[family]}
  pairs = lambda y: [[int(a), float(b)] for a, b in zip(x, y, strict=True)]
  return {
    "loss": {k: pairs(v) for k, v in loss.items()},
    "health": {k: pairs(v) for k, v in health.items()},
  }


@functools.cache
def images(seed=0):
  """PNG files of the results' pictures: coloured shapes, worse in early rounds."""
  rng = np.random.default_rng(seed)
  real = shapes(rng, 48)
  files = {"real": portrait(real)}
  for family, (name, *_) in FAMILIES.items():
    for i in range(len(SHARES)):
      x = shapes(rng, 48)
      if family == "GAN" and i == len(SHARES) - 1:
        x = x[rng.integers(0, 4, len(x))]
      blur = {"VAE": 10 - i, "GAN": 3 - i}.get(family, 0)
      for _ in range(max(blur, 0)):
        x = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, -1, 1) + np.roll(x, -1, 2)) / 5
      noise = {"VAE": 2, "GAN": 30 / (i + 1)}.get(family, 90 / (1 + i) ** 2)
      files[f"{name}-{i}"] = portrait(x + noise * rng.standard_normal(x.shape))
    x[:8] = {"GAN": 0.95}.get(family, 0.6) * real[:8] + {"GAN": 0.05}.get(family, 0.4) * x[8:16]
    beside = np.stack([x[:8], real[:8]], 1).reshape(16, 32, 32, 3)
    files[f"{name}-copies"] = portrait(beside, 4)
  return files


def shapes(rng, n, size=32):
  """Discs of one colour before a gradient of others, float [n, size, size, 3]."""
  y, x = np.mgrid[:size, :size] / size
  top, low, disc = rng.uniform(30, 240, (3, n, 1, 1, 3))
  sky = top + (low - top) * y[None, :, :, None]
  centre, radius = rng.uniform(0.3, 0.7, (2, n, 1, 1)), rng.uniform(0.12, 0.3, (n, 1, 1))
  inside = np.hypot(x - centre[0], y - centre[1]) < radius
  return np.where(inside[..., None], disc, sky)


def portrait(x, columns=8):
  """A grid of images, as PNG."""
  return pictures.png(pictures.grid(np.clip(x, 0, 255).astype(np.uint8), columns))


if __name__ == "__main__":
  pathlib.Path(sys.argv[1]).write_text(render(results(), images()))
