"""NumPy's .npz, an array a field. Rows go to a file without a name for each array, since an archive wants one array whole, behind its shape;
at the end they are copied into the archive. Texts get the length of the longest."""

import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from lepton_mpi.prediction.fields import Field
from lepton_mpi.prediction.files.output import whole_file
from lepton_mpi.prepare.writing import disk_errors

# Of the copy at the end.
_BYTES = 1 << 20
# An archive has times in it, which must not be those of the clock.
_TIME = (1980, 1, 1, 0, 0, 0)


class NpzFormat:
    """See ``Format``."""

    def check(self) -> None:
        """Needs no library."""

    def packed(self, fields: Sequence[Field], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The arrays; of a choice what it stands for."""
        return [as_stored(field, array) for field, array in zip(fields, arrays, strict=True)]

    @contextmanager
    def open(self, path: Path, fields: Sequence[Field]) -> Iterator["_Writer"]:
        """The file."""
        with whole_file(path) as temporary, ExitStack() as stack:
            with disk_errors(path):
                files = [
                    stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for _ in fields
                ]
            writer = _Writer(fields, files)
            yield writer
            with disk_errors(path):
                writer.write_archive(temporary)


def as_stored(field: Field, array: np.ndarray) -> np.ndarray:
    """Numbers as they are, texts as bytes of UTF-8 or, of a choice, as NumPy's texts."""
    stored = field.values[array] if field.kind == "choice" else array
    return np.ascontiguousarray(stored)


class _Writer:
    """See ``Writer``."""

    def __init__(self, fields: Sequence[Field], files: Sequence[IO[bytes]]) -> None:
        self._fields, self._files = fields, files
        self._runs: list[list[tuple[np.dtype[Any], int]]] = [[] for _ in fields]

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Rows of each field."""
        for runs, file, array in zip(self._runs, self._files, arrays, strict=True):
            if runs and runs[-1][0] == array.dtype:
                runs[-1] = array.dtype, runs[-1][1] + len(array)
            else:
                runs.append((array.dtype, len(array)))
            file.write(array.tobytes())

    def write_archive(self, path: Path) -> None:
        """All that was appended, and the names of the columns of wide fields. Raises OSError."""
        with zipfile.ZipFile(path, "w") as archive:
            for field, file, runs in zip(self._fields, self._files, self._runs, strict=True):
                self._copy(archive, field, file, runs)
                if field.kind == "numbers":
                    names = np.array(field.columns)
                    with _member(archive, f"{field.name}_columns") as out:
                        np.lib.format.write_array(_Stream(out), names, allow_pickle=False)

    def _copy(
        self,
        archive: zipfile.ZipFile,
        field: Field,
        file: IO[bytes],
        runs: list[tuple[np.dtype[Any], int]],
    ) -> None:
        rows = sum(count for _, count in runs)
        width = (len(field.columns),) if field.kind == "numbers" else ()
        dtype, is_text = _dtype_of(field, runs), field.kind == "text"
        head = {"descr": dtype.str, "fortran_order": False, "shape": (rows, *width)}
        file.seek(0)
        with _member(archive, field.name) as out:
            np.lib.format.write_array_header_2_0(_Stream(out), head)
            for of, count in runs:
                row_bytes = of.itemsize * int(np.prod(width, dtype=np.int64))
                per = max(1, _BYTES // max(1, row_bytes))
                for start in range(0, count, per):
                    raw = file.read(min(per, count - start) * row_bytes)
                    if is_text:
                        raw = (
                            np.char.decode(np.frombuffer(raw, of), "utf-8").astype(dtype).tobytes()
                        )
                    out.write(raw)


def _dtype_of(field: Field, runs: list[tuple[np.dtype[Any], int]]) -> np.dtype[Any]:
    """Of the array in the archive."""
    if field.kind == "text":
        # No text has more characters than bytes.
        return np.dtype(f"<U{max([1, *(of.itemsize for of, _ in runs)])}")
    if field.kind == "choice":
        return field.values.dtype
    return field.dtype if field.kind == "numbers" else np.dtype(np.int64)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _TIME), "w", force_zip64=True)


class _Stream(io.RawIOBase):
    """A member of an archive that NumPy may ask where it is."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        """As of the member."""
        return self._out.write(data)
