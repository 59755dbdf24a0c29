"""Sounds, .wav files of folders by class or named by a table, as log-mel spectrograms.

Windows of 25 ms every 10 ms (Hann), the power of their Fourier transform, weighted by triangles that are even on the mel scale,
mel = 2595 log10(1 + f / 700), from 0 to half the sample rate; the logarithm of each, at least 1e-10 (Davis and Mermelstein,
"Comparison of parametric representations for monosyllabic word recognition", 1980, without the cosine transform).
"""

from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.class_folders import SOUNDS, list_classes
from lepton_mpi.prepare.readers.file_rows import FilePart, FileRows, Unreadable
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.prepare.readers.wav_file import read_wav

_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.010
_LEAST_ENERGY = 1e-10
# So many that ranks agree seldom, so few that a slow file system shows them within any time limit.
_FILES_OF_ROUND = 100


def open_wav(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Rows float32 of shape (windows, mel bands), by class. Collective."""
    found = None
    with world.agreeing():
        if world.rank == 0:
            found = list_classes(inputs, SOUNDS, options)
    found = world.comm.bcast(found)
    rows = [FileRows.of_classes(files, inputs[0].path) for files in found.files]
    facts = {"format": "sounds by class", "class_names": found.names}
    return wav_source(rows, options, world, tuple(found.notes), facts)


def wav_source(
    rows: list[FileRows], options: Options, world, notes: tuple[str, ...], facts: dict[str, Any]
) -> Source:
    """Rows of these files, of the sample rate of the first. Collective. ``facts`` are fields of ``Source``."""
    rate, shorter, longer = _look_at_all([p for some in rows for p in some.paths], options, world)
    length = round(options.seconds * rate)
    with world.agreeing():
        if length < _window(rate):
            raise ConfigurationError(
                f"--seconds: expected at least {_WINDOW_SECONDS} s, got {options.seconds}"
            )
    shape = (1 + (length - _window(rate)) // round(_HOP_SECONDS * rate), options.mel_bands)
    lengths = (
        f"{options.seconds:g} s at {rate} Hz, {shorter} shorter files followed by silence, {longer} longer ones cut",
    )
    parts = [WavPart(some, rate, length, shape, options) for some in rows]
    return Source(tuple(parts), row_shape=shape, notes=(*lengths, *notes), **facts)


def _look_at_all(paths: list[Path], options: Options, world) -> tuple[int, int, int]:
    """The sample rate of all, and how many are shorter, and longer, than a row. Collective. Raises DataError."""
    looks = _Looks(options.sample_rate or 0)
    for first in range(0, len(paths), _FILES_OF_ROUND):
        # A round is progress, also for those who wait for it; all the files may take long.
        world.clock.enter("compute", first)
        with world.agreeing():
            if world.rank == 0:
                for path in paths[first : first + _FILES_OF_ROUND]:
                    looks.add(path, paths[0], options)
    with world.agreeing():
        if world.rank == 0 and not looks.rate:
            raise DataError(f"{paths[0]}: expected a sound that can be read, got none")
    return world.comm.bcast((looks.rate, looks.shorter, looks.longer))


@dataclass
class _Looks:
    """What is known of the files that were looked at; ``rate`` is 0 before the first."""

    rate: int
    shorter: int = 0
    longer: int = 0

    def add(self, path: Path, first: Path, options: Options) -> None:
        """One more file. Raises DataError."""
        try:
            own, samples = read_wav(path, mapped=True)
        except Unreadable:
            if options.unreadable == "drop":
                return
            raise
        self.rate = self.rate or own
        if own != self.rate and options.sample_rate is None:
            raise DataError(
                f"{path}: expected {self.rate} samples a second as in {first}, got {own}; see --sample-rate"
            )
        self.shorter += len(samples) / own < options.seconds
        self.longer += len(samples) / own > options.seconds


def _window(rate: int) -> int:
    return round(_WINDOW_SECONDS * rate)


def as_signal(samples: np.ndarray) -> np.ndarray:
    """float64 from -1 to 1, the mean of the channels, shape (samples,)."""
    if samples.dtype == np.uint8:
        signal = samples / 128.0 - 1
    elif samples.dtype.kind == "i":
        signal = samples / float(-int(np.iinfo(samples.dtype).min))
    else:
        signal = samples.astype(np.float64)
    return signal.mean(axis=1) if signal.ndim == 2 else signal


def log_mel(signal: np.ndarray, rate: int, bands: int) -> np.ndarray:
    """Spectrogram float32 (windows, bands) of a signal (samples,)."""
    window, hop = _window(rate), round(_HOP_SECONDS * rate)
    frames = np.lib.stride_tricks.sliding_window_view(signal, window)[::hop]
    size = 1 << (window - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, size)) ** 2
    energy = np.maximum(
        (power[:, None, :] * mel_triangles(rate, size, bands)).sum(axis=2), _LEAST_ENERGY
    )
    return np.log(energy).astype(np.float32)


def mel_triangles(rate: int, size: int, bands: int) -> np.ndarray:
    """Weights (bands, size // 2 + 1): each triangle is 1 at its middle and 0 at its neighbours' middles."""
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    corners = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.arange(size // 2 + 1) * rate / size
    low, middle, high = (corners[i : i + bands, None] for i in range(3))
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))


class WavPart(FilePart):
    """Sounds of one split; see ``Part``."""

    def __init__(
        self, files: FileRows, rate: int, length: int, shape: tuple[int, int], options: Options
    ) -> None:
        super().__init__(files, np.empty((0, *shape), np.float32), options)
        self._rate, self._length, self._bands = rate, length, shape[1]

    def read_file(self, path: Path) -> tuple[np.ndarray, list[str]]:
        """Spectrogram of one sound. Raises DataError."""
        rate, samples = read_wav(path)
        signal = as_signal(samples)
        if not np.isfinite(signal).all():
            raise Unreadable(
                f"{path}: expected finite samples; --unreadable drop leaves such files out"
            )
        if rate != self._rate:
            common = gcd(rate, self._rate)
            signal = resample_poly(signal, self._rate // common, rate // common)
        signal = np.pad(signal[: self._length], (0, max(0, self._length - len(signal))))
        return log_mel(signal, self._rate, self._bands), []
