"""Makes ``words.h5``, ten words spoken by a formant synthesiser: python lepton_mpi/data/embedded/make_words.py

A voice (pulses, or noise) goes through three resonances of the mouth, the formants, which move from sound to sound; hiss goes through one
resonance of its own. Every recording has a speaker of its own: pitch, length of the vocal tract, speed, voice and manner; and
noise behind it. No two are alike, and the words lie anywhere in their half second, so that position alone tells little.

``python -m lepton_mpi prepare`` makes log-mel spectrograms of the .wav files, which are stored as whole decibels above a floor.
Sources: Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67(3), 1980; formants of vowels for men: Peterson and
Barney, "Control methods used in a study of the vowels", JASA 24(2), 1952; the choice of words: Warden, "Speech commands", 2018,
arXiv:1804.03209.
"""

import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.signal import lfilter

SEED, RATE, SECONDS, BANDS = 0, 16_000, 0.5, 16
RECORDINGS = {"train": 54, "test": 18}
# Decibels at which a spectrogram begins, and which one step of what is stored is.
FLOOR, STEP = -40.0, 1.0
_BLOCK = 80  # samples, 5 ms, in which the resonances stand still
_BANDWIDTHS = (80.0, 110.0, 170.0)


class Sound(NamedTuple):
    """A part of a word.

    Attributes
    ----------
    formants : tuple of three, Hz
    milliseconds : float
    voice, breath, hiss : float
        How loud pulses, noise through the formants, and noise through a resonance at ``hiss_at`` are.
    hiss_at : float, Hz
    """

    formants: tuple[float, float, float]
    milliseconds: float
    voice: float = 1.0
    breath: float = 0.0
    hiss: float = 0.0
    hiss_at: float = 4000.0


def _closed(formants: tuple[float, float, float], voice: float = 0.0) -> Sound:
    """The mouth is shut."""
    return Sound(formants, 45, voice)


def _burst(formants: tuple[float, float, float], at: float, voice: float = 0.0) -> Sound:
    """The mouth opens at once."""
    return Sound(formants, 18, voice, 0.1, 0.5, at)


_P, _T, _D, _G = (400, 900, 2200), (350, 1800, 2650), (300, 1750, 2600), (280, 2050, 2300)
_A, _U, _I, _E = (730, 1090, 2440), (440, 1020, 2240), (390, 1990, 2550), (530, 1840, 2480)
_N = Sound((260, 1450, 2350), 75, 0.45)
_S = Sound((320, 1500, 2500), 95, 0.0, 0.02, 0.55, 5200)
_F = Sound((380, 1000, 2300), 90, 0.0, 0.05, 0.16, 3400)
WORDS: dict[str, list[Sound]] = {
    "down": [_closed(_D, 0.1), _burst(_D, 3900, 0.2), Sound(_A, 110), Sound(_U, 70), _N],
    "go": [_closed(_G, 0.1), _burst(_G, 1900, 0.2), Sound((500, 950, 2350), 110), Sound((420, 800, 2250), 100)],
    "left": [Sound((360, 1150, 2700), 65, 0.6), Sound(_E, 120), _F, _closed(_T), _burst(_T, 4300)],
    "no": [_N, Sound((500, 950, 2350), 120), Sound((420, 800, 2250), 110)],
    "off": [Sound((590, 900, 2400), 150), _F._replace(milliseconds=130)],
    "on": [Sound((650, 980, 2420), 160), _N._replace(milliseconds=110)],
    "right": [Sound((380, 1150, 1650), 70, 0.6), Sound(_A, 90), Sound(_I, 70), _closed(_T), _burst(_T, 4300)],
    "stop": [_S, _closed(_T), _burst(_T, 4300), Sound(_A, 120), _closed(_P), _burst(_P, 1100)],
    "up": [Sound((640, 1190, 2390), 130), _closed(_P), _burst(_P, 1100)],
    "yes": [Sound((280, 2250, 2950), 70, 0.7), Sound(_E, 120), _S._replace(milliseconds=120)],
}  # fmt: skip


def main() -> None:
    """Write words.h5 beside this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, count in RECORDINGS.items():
            _record_all(folder / split, count, list(RECORDINGS).index(split))
            words = (
                f"{folder / split}",
                f"{folder / split}.h5",
                "--format",
                "wav",
                "--split",
                "1,0,0",
            )
            _prepare(*words, "--seconds", f"{SECONDS}", "--mel-bands", f"{BANDS}")
            _as_decibels(folder / f"{split}.h5", folder / f"{split}.npz")
        inputs = [f"{split}={folder / split}.npz" for split in RECORDINGS]
        how = ("--dtype", "uint8", "--compress", "gzip", "--normalise", "standard", "--per", "all")
        _prepare(*inputs, str(Path(__file__).parent / "words.h5"), *how, "--force")


def _prepare(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "lepton_mpi", "prepare", *words], check=True)


def _record_all(folder: Path, count: int, split: int) -> None:
    """``count`` .wav files of each word, in a folder for each."""
    for label, (word, sounds) in enumerate(WORDS.items()):
        (folder / word).mkdir(parents=True)
        for number in range(count):
            random = np.random.default_rng([SEED, split, label, number])
            with wave.open(str(folder / word / f"{number:03}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))
                file.writeframes(recording(sounds, random).astype("<i2").tobytes())


def _as_decibels(prepared: Path, out: Path) -> None:
    """Log-mel spectrograms as whole steps above the floor, uint8, and the words."""
    with h5py.File(prepared) as file:
        decibels = 10 / np.log(10) * file["train/x"][()].astype(np.float64)
        names = [
            name.decode() if isinstance(name, bytes) else name for name in file.attrs["classes"]
        ]
        labels = np.array(names)[file["train/y"][()]]
    steps = np.clip(np.rint((decibels - FLOOR) / STEP), 0, 255)
    np.savez(out, x=steps.astype(np.uint8), y=labels)


def recording(sounds: list[Sound], random: np.random.Generator) -> np.ndarray:
    """Half a second of one speaker who says one word somewhere in it; float64, as 16-bit numbers."""
    speech = _speech(sounds, random)
    signal = np.zeros(round(SECONDS * RATE))
    first = random.integers(0, max(1, len(signal) - len(speech)))
    part = speech[: len(signal) - first]
    signal[first : first + len(part)] = part
    noise = _noise(len(signal), random)
    loudness = np.sqrt((speech**2).mean())
    noise *= loudness * 10 ** (-random.uniform(4, 24) / 20) / np.sqrt((noise**2).mean())
    signal = (signal + noise) / loudness * 3000 * 10 ** (random.uniform(-8, 4) / 20)
    return np.clip(np.rint(signal), -32768, 32767)


def _speech(sounds: list[Sound], random: np.random.Generator) -> np.ndarray:
    """The word alone."""
    tract, speed = random.uniform(0.88, 1.28), random.uniform(0.75, 1.15)
    manner = random.normal(1, 0.05, (len(sounds), 3))
    lengths = (
        np.array([s.milliseconds for s in sounds]) * speed * random.uniform(0.8, 1.2, len(sounds))
    )
    ends = np.cumsum(lengths)
    times = np.arange(0, ends[-1], 1000 * _BLOCK / RATE)
    middles = ends - lengths / 2
    formants = [np.array(sound.formants) for sound in sounds] * manner * tract
    tracks = [np.interp(times, middles, formants[:, k]) for k in range(3)]
    which = np.searchsorted(ends, times, side="right").clip(0, len(sounds) - 1)

    def track(values: list[float]) -> np.ndarray:
        """Blocks of what jumps from sound to sound, rounded off over 15 ms, sample by sample."""
        steps = np.convolve(np.pad(np.array(values)[which], 1, "edge"), np.ones(3) / 3, "valid")
        return np.repeat(steps, _BLOCK)

    voice, breath, hiss = (track([s[k] for s in sounds]) for k in (2, 3, 4))
    count, breathy = len(times) * _BLOCK, random.uniform(0.0, 0.12)
    pulses = _pulses(count, tract, random)
    source = voice * pulses + (breath + breathy * voice) * random.standard_normal(count)
    hissed = hiss * random.standard_normal(count)
    at = np.array([sound.hiss_at for sound in sounds])[which] * (0.6 + 0.4 * tract)
    return _resonate(source, tracks, _BANDWIDTHS) + 2 * _resonate(hissed, [at], (900.0,))


def _pulses(count: int, tract: float, random: np.random.Generator) -> np.ndarray:
    """Of the glottis: at a pitch that falls and trembles, duller the higher; shorter tracts have higher voices."""
    pitch = random.uniform(85, 160) * (1 + 1.6 * max(0, tract - 0.95)) * random.uniform(0.85, 1.25)
    fall, tremble = random.uniform(-0.25, 0.1), random.uniform(0.0, 0.03)
    moving = pitch * (1 + fall * np.linspace(0, 1, count))
    moving *= 1 + tremble * np.sin(2 * np.pi * random.uniform(4, 7) * np.arange(count) / RATE)
    phase = np.cumsum(moving / RATE) + random.uniform()
    pulses = np.diff(np.floor(phase), prepend=np.floor(phase[0]))
    return 8 * lfilter([1.0], [1, -random.uniform(0.85, 0.95)], lfilter([1, -1], [1, -0.9], pulses))


def _resonate(
    signal: np.ndarray, tracks: list[np.ndarray], widths: tuple[float, ...]
) -> np.ndarray:
    """One resonance behind the other, each of a frequency for every block and a bandwidth, Hz; gain 1 at frequency 0."""
    for track, width in zip(tracks, widths, strict=True):
        state, out = np.zeros(2), np.empty_like(signal)
        for block, frequency in enumerate(np.minimum(track, 0.45 * RATE)):
            radius = np.exp(-np.pi * width / RATE)
            a = [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2]
            own = slice(block * _BLOCK, (block + 1) * _BLOCK)
            out[own], state = lfilter([sum(a)], a, signal[own], zi=state)
        signal = out
    return signal


def _noise(count: int, random: np.random.Generator) -> np.ndarray:
    """From white to brown, with a hum in it sometimes."""
    noise = lfilter([1.0], [1, -random.uniform(0, 0.97)], random.standard_normal(count))
    hum = np.sin(2 * np.pi * random.uniform(50, 400) * np.arange(count) / RATE)
    return noise / noise.std() + random.uniform(0, 1) * (random.uniform() < 0.3) * hum


if __name__ == "__main__":
    main()
