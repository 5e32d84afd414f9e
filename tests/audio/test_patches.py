"""VGGish's patches are the reference's numbers."""

import pathlib

import numpy as np
import pytest
from vggish_weights import waves

from jaxgen.audio import patches

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "vggish.npz"


def test_patches_are_the_references():
  own, mel = patches.patches(waves()), np.load(GOLDEN)["mel"]
  assert own.shape == (2, 2, 96, 64) and own.dtype == np.float32
  np.testing.assert_allclose(own[:, :, ::5], mel, atol=1e-5)
  assert mel.std() > 1


def test_a_patch_takes_its_last_frame_whole():
  one = waves()[:, : patches.SHORTEST]
  assert patches.patches(one).shape == (2, 1, 96, 64)
  with pytest.raises(ValueError, match="no patch"):
    patches.patches(one[:, 1:])


def test_silence_is_the_offset():
  silence = patches.patches(np.zeros((1, 16_000)))
  np.testing.assert_allclose(silence, np.log(0.01), rtol=1e-6)
