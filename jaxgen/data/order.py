"""Which example stands at which position of the endless training stream.

The stream is one epoch after another, each in an order of its own. Position
p = step * batch + i holds the i-th example of a global batch, whatever the
number of processes that share the batch. Everything here is a pure function
of (seed, position) in integer arithmetic: no state, and the same answer on
every machine and with every version of numpy.
"""

import functools

import numpy as np

EPOCHS, FLIPS, CROPS = 1, 2, 3  # what a stream of random words is for
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def words(key: int, i: np.ndarray) -> np.ndarray:
  """Random 64-bit words, the i-th of the stream `key`: splitmix64.

  Steele, Lea and Flood, Fast splittable pseudorandom number generators
  (2014), Figure 16, with the state after i + 1 calls written out. For one
  key the map from i to its word is a bijection: no two i share a word.
  """
  z = (np.asarray(i, np.uint64) + np.uint64(1)) * _GAMMA
  z = z + np.array([key], np.uint64)
  z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return z ^ (z >> np.uint64(31))


def fold(key: int, *numbers: int) -> int:
  """A new key from a key and whole numbers, one after the other."""
  for number in numbers:
    key = int(words(key, np.array([number % 2**64], np.uint64))[0])
  return key


@functools.lru_cache(maxsize=8)  # the epochs around now, for a few streams
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
  """The order of an epoch, [n]: examples sorted by a random word each."""
  order = np.argsort(words(fold(0, seed, EPOCHS, epoch), np.arange(n)))
  order = order.astype(np.uint32 if n < 2**32 else np.uint64)
  order.setflags(write=False)
  return order


def indices(seed: int, n: int, positions: np.ndarray) -> np.ndarray:
  """The examples (0..n-1) at these ascending positions of the stream."""
  epoch, place = np.divmod(positions, n)
  if epoch[0] == epoch[-1]:
    return permutation(seed, int(epoch[0]), n)[place]
  parts = [permutation(seed, int(e), n)[place[epoch == e]] for e in np.unique(epoch)]
  return np.concatenate(parts)


def flips(seed: int, positions: np.ndarray) -> np.ndarray:
  """A fair coin for each position, bool."""
  return words(fold(0, seed, FLIPS), positions) >> np.uint64(63) == 1


def crops(seed: int, positions: np.ndarray) -> np.ndarray:
  """Three independent words for each position, [N, 3]: see image.random_crop.

  Of 32 random bits each, uint64.
  """
  streams = [words(fold(0, seed, CROPS, i), positions) for i in range(3)]
  return np.stack(streams, -1) >> np.uint64(32)
