"""Folders of .wav files by class, as log-mel spectrograms.

Windows of 25 ms every 10 ms (Hann), the power of their Fourier transform, weighted by triangles that are even on the mel scale,
mel = 2595 log10(1 + f / 700), from 0 to half the sample rate; the logarithm of each, at least 1e-10 (Davis and Mermelstein,
"Comparison of parametric representations for monosyllabic word recognition", 1980, without the cosine transform).
"""

import warnings
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, RowPart, Source
from lepton_mpi.prepare.readers.class_folders import ClassFiles, list_classes
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.010
_LEAST_ENERGY = 1e-10
# So many that ranks agree seldom, so few that a slow file system shows them within any time limit.
_FILES_OF_ROUND = 100


def open_wav(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Rows float32 of shape (windows, mel bands). Collective."""
    found = None
    with world.agreeing():
        if world.rank == 0:
            found = list_classes(inputs, (".wav",))
    files, names = world.comm.bcast(found)
    rate, shorter, longer = _look_at_all(files, options, world)
    length = round(options.seconds * rate)
    with world.agreeing():
        if length < _window(rate):
            raise ConfigurationError(
                f"--seconds: expected at least {_WINDOW_SECONDS} s, got {options.seconds}"
            )
    shape = (1 + (length - _window(rate)) // round(_HOP_SECONDS * rate), options.mel_bands)
    notes = (
        f"{options.seconds:g} s at {rate} Hz, {shorter} shorter files followed by silence, {longer} longer ones cut",
    )
    parts = [WavPart(some, inputs[0].path, rate, length, shape, options) for some in files]
    return Source(tuple(parts), "sounds by class", shape, class_names=names, notes=notes)


def _look_at_all(files: list[ClassFiles], options: Options, world) -> tuple[int, int, int]:
    """The sample rate of all, and how many are shorter, and longer, than a row. Collective. Raises DataError."""
    paths = [path for some in files for path in some.paths]
    looks = _Looks(options.sample_rate or 0)
    for first in range(0, len(paths), _FILES_OF_ROUND):
        # A round is progress, also for those who wait for it; all the files may take long.
        world.clock.enter("compute", first)
        with world.agreeing():
            if world.rank == 0:
                for path in paths[first : first + _FILES_OF_ROUND]:
                    looks.add(path, paths[0], options)
    return world.comm.bcast((looks.rate, looks.shorter, looks.longer))


@dataclass
class _Looks:
    """What is known of the files that were looked at; ``rate`` is 0 before the first."""

    rate: int
    shorter: int = 0
    longer: int = 0

    def add(self, path: Path, first: Path, options: Options) -> None:
        """One more file. Raises DataError."""
        own, samples = _read(path, mapped=True)
        self.rate = self.rate or own
        if own != self.rate and options.sample_rate is None:
            raise DataError(
                f"{path}: expected {self.rate} samples a second as in {first}, got {own}; see --sample-rate"
            )
        self.shorter += len(samples) / own < options.seconds
        self.longer += len(samples) / own > options.seconds


def _read(path: Path, mapped: bool = False) -> tuple[int, np.ndarray]:
    """Sample rate and samples as they are in the file. Raises DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chunks that are no sound are nobody's business
            return wavfile.read(path, mmap=mapped)
    except Exception as error:  # the reader raises whatever a damaged file leads it to
        if mapped and "mmap" in str(error):
            return _read(path)  # 24 bits a sample cannot be mapped
        raise DataError(f"{path}: not a readable .wav file: {one_line(error)}") from None


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


class WavPart(RowPart):
    """Sounds of one split; see ``Part``."""

    def __init__(
        self,
        files: ClassFiles,
        folder: Path,
        rate: int,
        length: int,
        shape: tuple[int, int],
        options: Options,
    ) -> None:
        name = folder.name + (f"/{files.split}" if files.split else "")
        row_bytes = 4 * shape[0] * shape[1]
        super().__init__(name, files.split, len(files.paths), row_bytes, options.block)
        self._files, self._rate, self._length, self._bands = files, rate, length, shape[1]

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        rows = [self._row(path) for path in self._files.paths[start:stop]]
        codes = np.array(self._files.codes[start:stop], np.int64)
        return Block(np.stack(rows), codes, {}, first_row=start)

    def _row(self, path: Path) -> np.ndarray:
        rate, samples = _read(path)
        signal = as_signal(samples)
        if not np.isfinite(signal).all():
            raise DataError(f"{path}: expected finite samples")
        if rate != self._rate:
            common = gcd(rate, self._rate)
            signal = resample_poly(signal, self._rate // common, rate // common)
        signal = np.pad(signal[: self._length], (0, max(0, self._length - len(signal))))
        return log_mel(signal, self._rate, self._bands)
