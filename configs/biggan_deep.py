"""BigGAN-deep on ImageNet: Brock et al. 2019, Sec. 4 and App. B.

| arg | G, D parameters | published FID, IS | z truncated, IS as of data |
| --- | --- | --- | --- |
| 128 | 50,244,484, 34,590,210 | 5.7, 124.5 | 7.4, 166.5 |
| 256 | 55,736,708, 38,247,426 | 6.9, 171.4 | 8.1, 232.5 |
| 512 | 56,019,780, 38,301,122 | 7.5, 152.8 | 11.5, 241.5 |

Cost as of configs/biggan.py. `hub128`, `hub256` and `hub512` are the published
generators as the hubs have them (their last layer makes 128 channels, of which
three are seen: 50,388,609, 55,880,833 and 56,163,905 parameters). They bring
batch norm's statistics for 51 truncations; `statistics` is the one that is
used, and their z is `temperature` times a normal one cut at 2.

  jaxgen train --config configs/biggan_deep.py --workdir W
  jaxgen train --config configs/biggan_deep.py:digits --workdir W
  jaxgen import --source biggan_hub --checkpoint pytorch_model.bin \
    --config configs/biggan_deep.py:hub256 --workdir W
  jaxgen sample --workdir W --temperature 0.4 --truncation 2 \
    --statistics 0.4 --out grid.png
"""

from configs import _biggan

SIZES = ("128", "256", "512")
ARGS = (*SIZES, *(f"hub{size}" for size in SIZES), "digits", "debug")


def get_config(arg="128"):
  """`arg`: see above; `digits`, small; `debug`."""
  if arg in ("digits", "debug"):
    return _biggan.digits("nets.biggan_deep", gen=dict(width=16), disc=dict(width=16), arg=arg)
  size = int(arg.removeprefix("hub"))
  net = dict(width=128, attend=(64,), dtype="bfloat16")
  gen = dict(net, size=size)
  if arg.startswith("hub"):
    gen.update(
      dtype="float32",
      tables=51,
      spare=125,
      eps=1e-4,
      norm=dict(name="nets.spectral.spectral", stored=True, eps=1e-4),
    )
  return _biggan.game(
    size,
    "nets.biggan_deep",
    gen=gen,
    disc=net,
    z_dim=128,
    lr=(5e-5, 2e-4) if size == 128 else (2.5e-5, 2.5e-5),
  )
