"""The reference evaluators, by name: all in which they differ, at a glance.

A number means something only beside the name of what made it. FIDs of the same
images under these protocols are up to a fifth apart (the resize alone).
"""

import dataclasses

from jaxgen.errors import UserError, nearest

RESIZES = {  # to the network's 299 x 299
  "tf": "TensorFlow 1's bilinear: corner-anchored, aliasing",
  "half_pixel": "bilinear, half-pixel centres, aliasing (PyTorch)",
  "clean": "PIL's bicubic in float, antialiased",
}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How numbers of its name are made.

  Attributes:
    name: as papers say it.
    resize: one of RESIZES.
    floats: how what a model makes becomes bytes: "truncate" is floor(127.5 (x
      + 1)), "round" floor(127.5 x + 128), of x in [-1, 1].
    images: how many generated ones papers count; fewer is worth a warning.
    metrics: what is measured if nobody asks.
    splits, split_size: of the Inception score: so many, or of such a size.
    shuffle: seed of the permutation before splitting; None: in order.
    kid_subsets, kid_size, kid_seed: of KID.
    kid_shrinks: smaller subsets where there are fewer images; else an error.
    manifold: how many reference images there are at the most for precision,
      recall, density, coverage and KID, taken at random with seed 0.
    mixed: whether images of one set may differ in size.
    k: of precision and recall. k_ball: of density and coverage.
    layer: of Fréchet distances, KID, precision and recall, in Inception.
    logits: of the Inception score.
    covariance: of Fréchet distances.
  """

  name: str
  resize: str
  floats: str
  images: int
  metrics: tuple[str, ...]
  splits: int | None = 10
  split_size: int | None = None
  shuffle: int | None = None
  kid_subsets: int = 100
  kid_size: int = 1000
  kid_seed: int = 2020
  kid_shrinks: bool = False
  manifold: int = 50_000
  mixed: bool = False
  k: int = 3
  k_ball: int = 5
  layer: str = "pool3"
  logits: str = "logits_unbiased"
  covariance: str = "unbiased (N - 1), float64"


PROTOCOLS = {
  p.name: p
  for p in (
    # openai/guided-diffusion, evaluations/evaluator.py. Its precision and
    # recall are float16; ours are exact, and metric pr_fp16 is like its.
    Protocol(
      "adm",
      "tf",
      "truncate",
      50_000,
      ("is", "fid", "sfid", "pr"),
      splits=None,
      split_size=5000,
      manifold=10_000,
    ),
    # mseitzer/pytorch-fid; also its --dims 64, 192, 768 as fid64, ...
    Protocol("pytorch-fid", "half_pixel", "round", 50_000, ("fid",)),
    # toshas/torch-fidelity 0.4. (Its own default for precision and recall
    # looks at VGG16; ours looks at Inception, as its argument can say.)
    Protocol("torch-fidelity", "tf", "truncate", 50_000, ("is", "fid", "kid", "pr"), shuffle=2020),
    # GaParmar/clean-fid, mode "clean". It does not seed KID's subsets.
    Protocol("clean-fid", "clean", "round", 50_000, ("fid", "kid"), kid_shrinks=True, mixed=True),
    # NVlabs/edm, fid.py and generate.py.
    Protocol("edm", "tf", "round", 50_000, ("fid",)),
  )
}
# The built-in judge's (see judge.py), on sets as large as the test split.
CLASSIFIER = Protocol("classifier", "none", "round", 0, ("fid", "pr", "dc"), layer="features")


def protocol(name: str) -> Protocol:
  """The protocol of a name; UserError with a guess if there is none."""
  if name not in PROTOCOLS:
    raise UserError(f"there is no protocol {name!r}" + nearest(name, PROTOCOLS))
  return PROTOCOLS[name]
