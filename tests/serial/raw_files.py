"""Raw files of every kind, in their true formats, and ``prepare`` run on them by threads as ranks."""

import gzip
import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from lepton_mpi.prepare import options
from tests.serial.thread_ranks import on_ranks

TEXT = "Der Mond ist aufgegangen, die goldnen Sternlein prangen.\n" * 20


def prepare(*words: object, ranks: int = 1) -> dict:
    """``python -m lepton_mpi prepare WORDS`` on threads; returns the facts. Raises what the command would say."""
    from lepton_mpi.prepare import (
        pipeline,  # not above: under MPI the first rank imports kernels first
    )

    chosen = options.parse([str(word) for word in words])
    return on_ranks(ranks, lambda world: pipeline.prepare(chosen, world))[0]


def digest(path: Path) -> str:
    """Of the file's bytes."""
    return hashlib.blake2b(path.read_bytes()).hexdigest()


def write_csv(path: Path, rows: list, *header: str, end: str = "\n", delimiter: str = ",") -> Path:
    """Rows of cells as they are; gzipped if the name says so."""
    lines = [delimiter.join(header)] if header else []
    lines += [delimiter.join(map(str, row)) for row in rows]
    raw = (end.join(lines) + end).encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def write_idx(path: Path, array: np.ndarray) -> Path:
    """As MNIST is published: magic number, dimensions, numbers, all big endian."""
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    raw = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def images(rows: int, shape: tuple[int, ...] = (8, 8), classes: int = 10, seed: int = 0):
    """uint8 images that a model can learn: noise over a pattern of the class."""
    random = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    patterns = np.random.default_rng(99).integers(0, 200, (classes, *shape))
    x = patterns[y] + random.integers(0, 56, (rows, *shape))
    return x.astype(np.uint8), y.astype(np.uint8)


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """A block in which no file can be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_cifar(path: Path, rows: int, label_bytes: int = 1, seed: int = 0) -> np.ndarray:
    """A file of records as published; returns the images (rows, 32, 32, 3)."""
    x, y = images(rows, (32, 32, 3), classes=10, seed=seed)
    planes = x.transpose(0, 3, 1, 2).reshape(rows, -1)
    labels = [y[:, None]] if label_bytes == 1 else [(y // 5)[:, None], y[:, None]]
    path.write_bytes(np.concatenate([*labels, planes], axis=1).astype(np.uint8).tobytes())
    return x


def write_sounds(folder: Path, rate: int = 8000, seconds: float = 0.5) -> Path:
    """Two classes of tones, four files each."""
    for number in range(8):
        kind = folder / ("high" if number % 2 else "low")
        kind.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(rate * seconds)) / rate
        tone = np.sin(2 * np.pi * (2000 if number % 2 else 300) * time + number)
        wavfile.write(kind / f"{number}.wav", rate, (tone * 20000).astype(np.int16))
    return folder


def write_torch_resnet(
    path: Path, model_name: str = "resnet8", shape: tuple[int, ...] = (8, 8)
) -> Path:
    """A network for images of that shape and 7 classes, by torch's names, with random parameters."""
    from safetensors.numpy import save_file

    from lepton_mpi.models.registry import make_model
    from lepton_mpi.models.torch_names import torch_names
    from lepton_mpi.options.config import Config
    from tests.serial.test_convolutional_models import Facts

    options = Config(model=model_name).for_model(threads=1)
    model = make_model(model_name, options, Facts(shape, 7, 7))
    arrays = {}
    for number, stored in enumerate(torch_names(model_name, model.shapes).values()):
        scale = np.sqrt(np.prod(stored.shape[1:]))
        array = np.random.default_rng(number).standard_normal(stored.shape) / scale
        arrays[stored.name] = (np.abs(array) if "var" in stored.name else array).astype("f4")
    save_file(arrays, path)
    return path


def write_pictures(folder: Path, rows: int = 24, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    """PNG files of three classes; returns the pixels, in the order of names."""
    from PIL import Image

    x, y = images(rows, shape, classes=3)
    for number in range(rows):
        kind = folder / f"kind{y[number]}"
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[number]).save(kind / f"{number:03d}.png")
    return x[np.argsort(y, kind="stable")]


def same_on_ranks(out: Path, *words: object) -> dict:
    """The facts; the files of 1, 2, 3 and 8 ranks are the same bits."""
    facts = prepare(*words, out, "--force")
    first = digest(out)
    for ranks in (2, 3, 8):
        prepare(*words, out, "--force", ranks=ranks)
        assert digest(out) == first, ranks
    return facts


def write_raw_files(folder: Path) -> None:
    """What the commands of ``lepton_mpi/prepare/README.md`` read, in small."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    write_csv(
        folder / "optdigits.csv",
        np.column_stack([digits.data, digits.target]).astype(int).tolist(),
    )
    x, y = images(600, (28, 28))
    np.savez_compressed(
        folder / "mnist.npz", x_train=x[:500], y_train=y[:500], x_test=x[500:], y_test=y[500:]
    )
    for name, rows in (("train", slice(0, 500)), ("t10k", slice(500, 600))):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", x[rows])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", y[rows])
    names = ["label", *(f"pixel{i}" for i in range(784))]
    rows = np.column_stack([y, x.reshape(600, -1)]).tolist()
    write_csv(folder / "mnist_train.csv.gz", rows, *names)
    random = np.random.default_rng(0)
    customers = []
    for i in range(400):
        left = i % 2
        age = "" if i % 40 == 3 else int(random.normal(60 if left else 30, 6))
        plan = "" if i % 12 == 5 else ["small", "large", '"huge, with extras"'][i % 3]
        customers.append([age, plan, f"{random.normal(2 * left):.3f}", ["no", "yes"][left]])
    write_csv(folder / "customers.csv", customers + customers[:30], "age", "plan", "score", "left")
    text = "Full fathom five thy father lies; of his bones are coral made; those are pearls that were his eyes.\n"
    (folder / "shakespeare.txt").write_text(text * 40)
