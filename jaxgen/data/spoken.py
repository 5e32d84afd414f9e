"""Spoken digits that need no download: eSpeak NG reads them, from its wheel.

154 speakers, which are seven accents with 22 voices each, say each digit in two
speeds at two pitches. Those of every fifth voice are held out.
"""

import ctypes
import functools
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np

from jaxgen.data import cache, clips, recordings
from jaxgen.errors import UserError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = (
  "en-us", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
  "en-029",
)  # fmt: skip
VOICES = (
  "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5",
  "Alex", "Andrea", "Annie", "Lee", "Mike", "belinda", "linda", "max", "steph",
)  # fmt: skip
SPEEDS, PITCHES = (150, 200), (40, 60)  # words a minute; of 100
RATE, SIZE = 8000, 4096  # by default: samples a second, and of a clip
SPOKEN_RATE = 22_050  # of the synthesiser
SPEED, PITCH, RETRIEVAL, CHARS_UTF8 = 1, 3, 1, 1  # of its interface, in speak_lib.h
SEED = 1  # of each utterance; else noise is another in every process
VERSION = 2  # of how utterances are rendered
QUIET = 0.01  # of the loudest sample: what is below at both ends is cut off


def open_spoken(split: str, size: int | None, rate: int, root: Path) -> clips.Clips:
  """The clips of a split, "train" or "test", by speakers of their own.

  Args:
    split: Which.
    size: Samples of a clip; None: SIZE.
    rate: Samples a second; 0: RATE.
    root: Where prepared data lie.

  Raises:
    UserError: There is no such split, or no synthesiser.
  """
  if split not in ("train", "test"):
    raise UserError(f"spoken_digits has the splits train and test, not {split}")
  rate = rate or RATE
  clips.check_clip("spoken_digits", size or SIZE, rate)
  folder = cache.once(root / f"spoken_digits-v{VERSION}", speak)
  raw = np.fromfile(folder / "x.bin", np.int16)
  ends = np.fromfile(folder / "ends.bin", np.int64)
  held = [held_out(voice) for _, voice, *_ in utterances()]
  rows = [i for i, out in enumerate(held) if out == (split == "test")]
  soxr = recordings.library("soxr")

  def load(i: int) -> np.ndarray:
    start = ends[rows[i] - 1] if rows[i] else 0
    wave = raw[start : ends[rows[i]]].astype(np.float32) / 2**15
    return recordings.as_int16(soxr.resample(wave, SPOKEN_RATE, rate))

  labels = [rows[i] % len(WORDS) for i in range(len(rows))]
  target = root / "packed" / f"spoken_digits-v{VERSION}-{split}-{rate}hz-v{clips.VERSION}"
  names = tuple("0123456789")
  return clips.packed("spoken_digits", target, load, labels, names, rate, size or SIZE)


def utterances() -> list[tuple[str, str, int, int, str]]:
  """Accent, voice, speed, pitch and word of each, in the order of the data."""
  return list(itertools.product(ACCENTS, VOICES, SPEEDS, PITCHES, WORDS))


def held_out(voice: str) -> bool:
  """Whether a voice is of the test split."""
  return VOICES.index(voice) % 5 == 2


def speak(folder: Path) -> None:
  """Renders all utterances into folder / "spoken_digits-v..".

  In a process of its own: what the synthesiser says depends a little on all that
  it said before.
  """
  target = folder / f"spoken_digits-v{VERSION}"
  target.mkdir()
  code = "import sys; from jaxgen.data import spoken; spoken.render(sys.argv[1])"
  done = subprocess.run(
    [sys.executable, "-c", code, str(target)], stderr=subprocess.PIPE, text=True, check=False
  )
  if done.returncode:
    why = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
    raise UserError(f"spoken_digits cannot be rendered: {why[0].partition('UserError: ')[-1]}")


def render(folder: str) -> None:
  """Writes x.bin and ends.bin of all utterances, without silence at their ends."""
  say = synthesiser()
  waves = [trimmed(say(*utterance)) for utterance in utterances()]
  np.concatenate(waves).tofile(Path(folder) / "x.bin")
  np.cumsum([len(w) for w in waves], dtype=np.int64).tofile(Path(folder) / "ends.bin")


def trimmed(wave: np.ndarray) -> np.ndarray:
  """The samples between the first and the last that is not quiet."""
  loud = np.abs(wave.astype(np.int32))
  (rows,) = np.nonzero(loud > QUIET * loud.max())
  return wave[rows[0] : rows[-1] + 1]


def synthesiser():
  """f(accent, voice, speed, pitch, word) -> int16 [L] at SPOKEN_RATE."""
  espeak = recordings.library("espeakng_loader")
  lib = ctypes.CDLL(espeak.get_library_path())
  if lib.espeak_Initialize(RETRIEVAL, 0, str(espeak.get_data_path()).encode(), 0) != SPOKEN_RATE:
    raise UserError("eSpeak NG cannot be started")
  parts = []

  @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
  def take(wave, count, events):
    if wave and count > 0:
      parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
    return 0

  lib.espeak_SetSynthCallback(take)
  libc = ctypes.CDLL(None)  # whose rand() makes its breath, beside its own

  def say(take, accent: str, voice: str, speed: int, pitch: int, word: str) -> np.ndarray:
    parts.clear()
    libc.srand(SEED)
    lib.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    if lib.espeak_SetVoiceByName(f"{accent}+{voice}".encode()):
      raise UserError(f"eSpeak NG has no voice {accent}+{voice}")
    lib.espeak_SetParameter(SPEED, speed, 0)
    lib.espeak_SetParameter(PITCH, pitch, 0)
    text = word.encode()
    lib.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, CHARS_UTF8, None, None)
    lib.espeak_Synchronize()
    return np.concatenate(parts)

  return functools.partial(say, take)  # which the library calls, so it has to live
