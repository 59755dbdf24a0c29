"""Bytes of a file that HDF5 would not write."""

from pathlib import Path

import h5py
import numpy as np

from tests.serial.attacks.registry import on_path


def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def _change_chunks(path: Path, dimensions: int = 3, shape: tuple[int, ...] = (12, 4, 8)) -> None:
    """Rows in chunks of (12, 4) elements of 8 bytes, whose description says something else."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((36, 4)), chunks=(12, 4))
        file["y"] = np.arange(36) % 3
    written, content = np.array([12, 4, 8], "<u4").tobytes(), path.read_bytes()
    place = content.index(written) - 9  # before it an address and the number of dimensions
    old = content[place : place + 9 + len(written)]
    assert old[0] == 3
    _replace(path, old, bytes([dimensions]) + old[1:9] + np.array(shape, "<u4").tobytes())


@on_path
def chunks_of_more_dimensions(path, secret):
    _change_chunks(path, dimensions=4)


@on_path
def chunks_of_fewer_dimensions(path, secret):
    _change_chunks(path, dimensions=2)


@on_path
def chunks_of_longer_elements(path, secret):
    _change_chunks(path, shape=(12, 4, 80))


@on_path
def chunks_of_shorter_elements(path, secret):
    _change_chunks(path, shape=(12, 4, 1))


@on_path
def chunks_of_no_rows(path, secret):
    _change_chunks(path, shape=(0, 4, 8))


@on_path
def chunks_of_too_many_rows(path, secret):
    _change_chunks(path, shape=(0xFFFFFFFF, 4, 8))


@on_path
def more_rows_than_bytes(path, secret):
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.ones((61, 4)), np.arange(61) % 3
    few, many = (np.array([rows], "<u8").tobytes() for rows in (61, 10**12))
    path.write_bytes(path.read_bytes().replace(few, many))


@on_path
def many_texts_that_are_one_large_one(path, secret):
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.ones((60, 4)), np.arange(60) % 3
        texts = file.create_dataset("about/texts", (1000,), h5py.string_dtype())
        texts[:] = ["a" * 1_000_000, *("b" for _ in range(999))]
        start = texts.id.get_offset()
    content = bytearray(path.read_bytes())
    content[start : start + 16_000] = content[start : start + 16] * 1000
    path.write_bytes(content)


@on_path
def two_splits_in_one_place(path, secret):
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            file[f"{split}/y"], file[f"{split}/x"] = np.zeros(4000, int), np.ones((4000, 4))
        one, two = (file[f"{split}/x"].id.get_offset() for split in ("train", "test"))
    assert two + 128_000 == path.stat().st_size
    _replace(path, np.array([two], "<u8").tobytes(), np.array([one], "<u8").tobytes())
