"""BigGAN on ImageNet: Brock et al. 2019, "Large scale GAN training ...".

| arg | G, D parameters | published FID, IS | z truncated for the best FID |
| --- | --- | --- | --- |
| 128 | 70,433,988, 87,982,370 | 8.7, 98.8 | 7.7, 126.5 |
| 256 | 82,235,844, 99,225,890 | 8.7, 142.3 | 7.7, 178.0 |
| 512 | 82,468,068, 99,401,282 | 8.1, 144.2 | 7.6, 170.3 |

Cost: about 150,000 moves of the generator and twice as many of the
discriminator, 2048 images each, on 128 to 512 cores of a TPU v3 for one to two
days; then training collapses, and an earlier checkpoint is taken. Smaller
batches are worse (Table 1); --config.accumulate=8 makes a batch of parts, whose
batch norms are theirs alone. The average of weights begins with a ramp over the
20,000 moves before which the source keeps none.

  jaxgen train --config configs/biggan.py --workdir W
  jaxgen train --config configs/biggan.py:digits --workdir W
  jaxgen train --config configs/biggan.py:photos --workdir W
  jaxgen sample --workdir W --truncation 0.5 --out grid.png
  jaxgen import --source biggan --checkpoint G_ema.pth --disc D.pth \
    --config configs/biggan.py --workdir W
"""

from configs import _biggan

ARGS = ("128", "256", "512", "digits", "photos", "debug")
Z = {"128": 120, "256": 140, "512": 160}  # Tables 4 to 6: 20 for every norm


def get_config(arg="128"):
  """`arg`: see above; `digits`, `photos`, minutes on a laptop; `debug`."""
  if arg == "photos":
    return _biggan.photos("nets.biggan", gen=dict(width=8), disc=dict(width=8))
  if arg in ("digits", "debug"):
    return _biggan.digits("nets.biggan", gen=dict(width=8), disc=dict(width=8), arg=arg)
  net = dict(width=96, attend=(64,), dtype="bfloat16")
  return _biggan.game(
    int(arg), "nets.biggan", gen=dict(net, size=int(arg)), disc=net, z_dim=Z[arg], lr=(5e-5, 2e-4)
  )
