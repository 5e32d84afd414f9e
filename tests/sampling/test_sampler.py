"""The way of a key, from `Sampler.sample` to the net."""

import pytest
from frames import frames_to_net, sampler_of


@pytest.mark.parametrize("name", ["ddim", "heun", "unipc"])
def test_a_sample_passes_nine_frames_on_its_way_to_the_net(name):
  frames = frames_to_net(sampler_of("configs/digits_diffusion.py:debug", name))
  assert frames[0] == "sampling/sampler.py:Sampler.sample"
  assert frames[-1] == "nets/unet.py:UNet.__call__" and len(frames) == 10, frames
