"""A .wav file: its sample rate and samples, if it has as many as its head promises."""

import struct
import warnings
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from lepton_mpi.prepare.readers.file_rows import Unreadable
from lepton_mpi.wording import one_line

# What programs write that did not know the length when they began.
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
_HINT = "--unreadable drop leaves such files out"


def read_wav(path: Path, mapped: bool = False) -> tuple[int, np.ndarray]:
    """Sample rate and samples as they are in the file. Raises Unreadable."""
    _check_length(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chunks that are no sound are nobody's business
            rate, samples = wavfile.read(path, mmap=mapped)
    except Exception as error:  # the reader raises whatever a damaged file leads it to
        if mapped and "mmap" in str(error):
            return read_wav(path)  # 24 bits a sample cannot be mapped
        raise Unreadable(f"{path}: not a readable .wav file: {one_line(error)}; {_HINT}") from None
    if not len(samples):
        raise Unreadable(f"{path}: expected a sound, got none: no sample; {_HINT}")
    return rate, samples


def _check_length(path: Path) -> None:
    """Compare what the head promises with the length of the file; the reader would stop at its end. Raises Unreadable."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            form = "<I" if head[:4] in (b"RIFF", b"RF64") else ">I"
            if head[:4] not in (b"RIFF", b"RIFX") or head[8:12] != b"WAVE":
                return  # the reader says what is wrong
            size = path.stat().st_size
            while len(chunk := file.read(8)) == 8:
                length = struct.unpack(form, chunk[4:])[0]
                if chunk[:4] == b"data" and length not in _UNKNOWN_LENGTHS:
                    there = size - file.tell()
                    if there < length:
                        raise Unreadable(
                            f"{path}: expected {length} bytes of samples as its head says, got {there}: damaged, or not whole; "
                            f"{_HINT}"
                        )
                    return
                file.seek(length + length % 2, 1)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror}") from None
