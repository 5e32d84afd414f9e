"""Sound of any length in pieces: against a single pass."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from games import filled
from verbs import call, tree
from vocoders import RATE, song, vocoder

from jaxgen import core
from jaxgen.audio.wav import read_info
from jaxgen.config import build
from jaxgen.errors import UserError
from jaxgen.keys import fold
from jaxgen.sampling import vocode
from jaxgen.sampling.presets import SAMPLERS
from jaxgen.sampling.sampler import Sampler, load
from jaxgen.sampling.vocode import Vocoder

pytestmark = pytest.mark.usefixtures("unoptimised")
KEY = jax.random.key(5)
HOP = 16
FRONT = dict(name="audio.mel.DiffWaveMel", rate=RATE, mels=6, hop=HOP, fft=64)
PROCESS = dict(name="diffusion.process.DDPM", steps=50, beta_1=1e-4, beta_T=0.05)
SPEC = dict(
  name="models.diffusion.Diffusion",
  net=dict(name="nets.diffwave.DiffWave", width=8, layers=4, cycle=4, mels=6, strides=(4, 4)),
  process=PROCESS,
  precond=dict(name="diffusion.precond.aligned", process=PROCESS),
  draw_t=dict(name="diffusion.times.grid", steps=50),
  path=dict(name="diffusion.times.even"),
  sampler=dict(name="diffusion.samplers.waveform"),
  steps=3,
  classes=0,
  cond=dict(mel=dict(name="audio.mel.of_clips", front=FRONT)),
)


def loaded(**changes):
  model = build(SPEC | changes)
  shapes = {"x": jax.ShapeDtypeStruct((1, 512, 1), jnp.float32)}
  init = core.make_init(model, {"net": build(dict(name="optim.adam", lr=1.0))(steps=1)}, ())
  state = filled(jax.eval_shape(init, shapes, KEY))
  card = {"workdir": "V", "rate": RATE, "step": 1}
  return Sampler(model, state, (512, 1), np.dtype(np.int16), 0, card)


def one_pass(sampler, mel, **knobs):
  keys = fold(jnp.broadcast_to(KEY, (1,)), jnp.zeros(1, int))
  batch = {"x": jnp.zeros((1, (len(mel) - 1) * HOP, 1)), "mel": mel[None]}
  return np.asarray(jax.jit(sampler.model.sample)(sampler.state, batch, keys, **knobs))[0, :, 0]


@pytest.mark.parametrize("name", ["waveform", "unipc"])
def test_pieces_are_what_a_single_pass_is(name):
  """Whichever sampler; of the fresh noise at each step, too."""
  sampler = loaded(sampler=SAMPLERS[name])
  ours = Vocoder(sampler, KEY, piece=512)
  wave = song(250 * HOP)
  mel = ours.analyse(wave)
  size, cuts = ours.layout(len(wave))
  assert size == 512 and len(cuts) > 8 and ours.reach(size) < 128
  assert [c.first for c in cuts[1:]] == [c.last for c in cuts[:-1]]
  done = []
  x = ours.render(mel, done.append)
  assert done == list(range(1, ours.work(len(mel)) + 1))
  want = one_pass(sampler, mel)
  assert want.std() > 0.01
  np.testing.assert_allclose(x, want, atol=1e-5)
  # No click: borders are as smooth as all else, and too small a halo would show.
  jumps = np.abs(np.diff(x - want))
  assert jumps.max() < 2e-5
  ours._sizes[size] = 0
  assert np.abs(ours.render(mel) - want).max() > 1e-3


def test_the_reach_is_that_of_the_convolutions():
  """2^0 + .. + 2^3 samples, and what a frame is spread over."""
  ours = Vocoder(loaded(), KEY, piece=512)
  rows = ours.reach(512)
  spread = 15 + 4 * 2 + 2  # of the two upsampling layers, beyond a frame
  assert rows % HOP == 0 and 15 <= rows <= 15 + spread + HOP


def test_analysis_in_parts_is_the_front_end(monkeypatch):
  ours = Vocoder(loaded(), KEY)
  wave = song(40 * HOP)
  want = np.asarray(ours.make(wave[None, :, None] / np.float32(2**15)))[0]
  for frames in (7, 41, 1024):
    monkeypatch.setattr(vocode, "FRAMES", frames)
    np.testing.assert_allclose(Vocoder(loaded(), KEY).analyse(wave), want, atol=2e-5)
  odd = ours.analyse(wave[:-3])
  assert odd.shape == want.shape
  assert ours.analyse(wave[:3]).shape == (2, 6)


def test_a_model_of_one_pass_goes_in_pieces_too():
  class Filter:
    """x = a local mean of the spectrogram, held for a hop."""

    cond = build(SPEC).cond
    knobs = {}

    def sample(self, state, batch, key):
      level = batch["mel"].mean(-1)
      smooth = jax.vmap(lambda row: jnp.convolve(row, jnp.ones(5) / 5, "same"))(level)
      return jnp.repeat(smooth, HOP, 1)[:, : batch["x"].shape[1], None]

  sampler = loaded()
  sampler = Sampler(Filter(), sampler.state, (512, 1), sampler.dtype, 0, sampler.card)
  ours = Vocoder(sampler, KEY, piece=512)
  mel = ours.analyse(song(100 * HOP))
  x = ours.render(mel)
  want = np.repeat(np.convolve(mel.mean(-1), np.ones(5) / 5, "same"), HOP)[: len(x)]
  assert len(ours.layout(len(x))[1]) > 2
  np.testing.assert_allclose(x, want, atol=1e-6)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return vocoder(tmp_path_factory.mktemp("vocoder"))


def test_the_verb_makes_a_recording_anew(workdir, tmp_path, capsys, monkeypatch):
  """Of another rate and two channels; the rate is the model's, and it says how."""
  t = np.arange(11_025)[:, None] / 22_050
  wave = 0.4 * np.sin(2 * np.pi * np.array([300, 400]) * t)
  soundfile.write(tmp_path / "a.wav", wave, 22_050, "FLOAT")
  argv = ["sample", f"--workdir={workdir}", f"--mel={tmp_path / 'a.wav'}"]
  out = tmp_path / "again.wav"
  status, said, lines = call(capsys, monkeypatch, *argv, f"--out={out}", "--piece=2048")
  assert (status, said) == (0, f"1 recording -> {out}\n"), lines
  assert "a.wav: 0:00 of sound in" in lines[-1] and "s a second; compiling:" in lines[-1]
  x, rate = soundfile.read(out, dtype="int16")
  assert (x.shape, rate) == ((4000,), RATE) and x.std() > 0
  info = read_info(out)
  assert info["source"] == "a.wav" and info["knobs"]["steps"] == 2 and info["rate"] == RATE
  # Its own spectrogram is as good, and the same seed the same noise.
  ours = Vocoder(load(str(workdir)), jax.random.key(0), piece=2048)
  np.save(tmp_path / "a.npy", vocode.read_input(tmp_path / "a.wav", ours)[0])
  argv[-1] = f"--mel={tmp_path / 'a.npy'}"
  status, _, lines = call(capsys, monkeypatch, *argv, f"--out={out}", "--piece=2048")
  assert status == 0, lines
  again, _ = soundfile.read(out, dtype="int16")
  assert len(again) == 4032
  np.testing.assert_array_equal(again[:4000], x)
  status, _, lines = call(capsys, monkeypatch, *argv, f"--out={out}", "--respacing=fast")
  assert status == 0 and read_info(out)["knobs"]["steps"] == 6, lines


def test_a_folder_of_all_kinds(workdir, tmp_path):
  src, out = tmp_path / "src", tmp_path / "out"
  (src / "deep").mkdir(parents=True)
  soundfile.write(src / "deep" / "a.flac", song(700), RATE)
  soundfile.write(src / "b.wav", song(9000), 96_000, "PCM_U8")
  np.save(src / "c.npy", np.full((9, 40), 0.5, np.float32))
  (src / "text.wav").write_text("not sound")
  soundfile.write(src / "three.wav", song(3), RATE)
  soundfile.write(src / "silent.wav", np.zeros(4000), RATE)
  spoiled = np.full(4000, np.nan)
  soundfile.write(src / "nan.wav", spoiled, RATE, "FLOAT")
  ours = Vocoder(load(str(workdir)), KEY)
  run = lambda: vocode.vocode(ours, str(src), str(out), {"seed": 1}, io.StringIO())
  with pytest.raises(UserError, match="4 of 7 files were skipped, such as nan.wav: has samples"):
    run()
  written = {k.as_posix(): v for k, v in tree(out).items() if v}
  assert set(written) == {"deep/a.wav", "b.wav", "c.wav"}
  assert len(soundfile.read(out / "b.wav")[0]) == 750
  with pytest.raises(UserError, match="4 of 7"):
    run()  # again, which replaces its own
  assert {k.as_posix(): v for k, v in tree(out).items() if v} == written


@pytest.mark.parametrize(
  ("mel", "said"),
  [
    (np.zeros((9, 40), int), "holds int64 [9, 40]: want float32 [frames, 40]"),
    (np.zeros((40, 9)), "hears 40 bands: turn it around"),
    (np.full((9, 40), np.nan), "no numbers"),
    (np.full((9, 40), -4.0), "a spectrogram of another kind"),
    (np.zeros((1, 40)), "has 1 frames: too few"),
  ],
)
def test_spectrograms_that_are_none(workdir, tmp_path, mel, said):
  np.save(tmp_path / "x.npy", mel)
  with pytest.raises(UserError) as e:
    vocode.vocode(
      Vocoder(load(str(workdir)), KEY), str(tmp_path / "x.npy"), str(tmp_path / "y.wav"), {}
    )
  assert said in str(e.value) and not (tmp_path / "y.wav").exists()


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    ("--mel=DATA/0.wav --out=x.png", "want x.wav for --mel="),
    ("--mel=DATA --out=x.wav", "is a folder, so that must be one, too"),
    ("--mel=DATA --out=DATA/x", "would mix with the recordings"),
    ("--mel=DATA/0.wav --out=DATA/0.wav", "would replace what is read"),
    ("--mel=nowhere.wav --out=x.wav", "there is no such file or folder"),
    ("--mel=DATA --num=3 --out=x", "--num is not for --mel"),
    ("--out=x", "makes sound from spectrograms: give --mel=clip.wav"),
    ("--mel=DATA/0.wav --out=x.wav --piece=3", "piece=3: want at least 64"),
  ],
)
def test_what_cannot_be(workdir, capsys, monkeypatch, flags, said):
  flags = flags.replace("DATA", str(workdir.parent / "data")).split()
  status, _, lines = call(capsys, monkeypatch, "sample", f"--workdir={workdir}", *flags)
  assert status == 2 and len(lines) == 1 and said in lines[0], lines
