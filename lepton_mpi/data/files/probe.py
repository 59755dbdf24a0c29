"""A first look at a file from elsewhere, in a process of its own, which may die of it.

HDF5 2.0 crashes on some damaged files, runs in circles in others, or asks for memory without end. A rank that opened
one would take the job with it, so one rank of each host has the file looked at first::

    rank ── path ──► server: Python with h5py ── fork ──► look(): limits, then all checks
         ◄─ reply ──                          ◄─ reason, or the signal that ended it

The look is limited in memory and in processor time and writes no core file.
What it has seen is what the ranks will ask HDF5 for: every description, every index of chunks, every text, and the last
elements of every data set; packed chunks are unpacked, see ``stored.py``, but for those of rows, whose reader
(``stored_rows.py``) is as careful as the look.
After it, rows can still be found to be damaged when they are read, by a wrong checksum for one, and that is a line with
the name of the data set. What the look cannot see is a file that changes afterwards, and numbers that no checksum covers.

A look takes a start of Python with h5py, 0.1 s, and the time to unpack what is packed. Whether a file needs one cannot
be told from the file: a signature in it could be anybody's. Files of this package are not looked at, nor those of ``made_here``.
"""

import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.wording import one_line

# The largest chunk that may be, packed, unpacked and sorted, by HDF5 and here; a hostile file gets no more.
_MEMORY_BYTES = 2 << 30

# A small file takes a few ms; what takes seconds goes in circles. Large ones may have millions of chunks.
_CPU_SECONDS, _CPU_BYTES_PER_SECOND = 2, 50e6
# Two are measured to be enough, on a machine with nothing else to do.
_CPU_SECONDS_PER_CHUNK = 10e-6
# For disks that are slow, or do not answer.
_WALL_SECONDS, _WALL_BYTES_PER_SECOND, _WALL_SECONDS_PER_CHUNK = 60, 10e6, 20e-6
# A machine may stand still for so long: whoever took too much is looked at once more, with so many times as much of the processor.
_PATIENCE = 4
_patience = 1
_OF_TIME = (signal.SIGXCPU, signal.SIGALRM)

# Files that this process has made in a folder of its own.
_made_here: set[Path] = set()

# What --x and --y name.
Arrays = tuple[str | None, str | None]


class Probe:
    """A process that looks at files, one after the other. A context manager; ends with its block."""

    def __init__(self) -> None:
        # Without what Python reads at its start, which takes as long again, and without the user's settings of it:
        # its path is this one's, and the folder of this package, which an editable install finds in another way.
        path = [*sys.path, str(Path(__file__).parents[3])]
        program = f"import sys; sys.path[:] = {path!r}; from lepton_mpi.data.files import probe; probe.serve()"
        quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
        try:
            self._server = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | quiet,
            )
        except OSError as error:
            raise LauncherError(f"cannot start a process that checks data files: {error}") from None

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def check(
        self,
        path: Path,
        arrays: Arrays | None = None,
        unpack: Collection[str] | None = None,
    ) -> None:
        """Look at a file. Raises DataError if it is not to be read, LauncherError if there is no looking.

        Parameters
        ----------
        path
        arrays
            What the user calls features and labels, None for usual names: then those data sets must be good, see ``used.py``.
            Without it the whole file must be, as a checkpoint.
        unpack
            Names of the data sets, or of groups of them, of which all packed chunks are unpacked, of the others only
            the last; None for all.
        """
        check_regular(path)
        asked = [
            os.fsdecode(path),
            *(None if names is None else list(names) for names in (arrays, unpack)),
        ]
        try:
            self._server.stdin.write(json.dumps(asked).encode() + b"\n")
            self._server.stdin.flush()
            reply = self._server.stdout.readline()
        except OSError:
            reply = b""
        if not reply:
            _, words = self._server.communicate()
            raise LauncherError(
                f"the process that checks data files ended: {one_line(words.decode(errors='replace'))}"
            )
        if wrong := json.loads(reply):
            raise DataError(wrong)


@contextmanager
def made_here(path: Path) -> Iterator[None]:
    """A block in which a file needs no look: this process has made it, in a folder that no other user can write to."""
    _made_here.add(path)
    try:
        yield
    finally:
        _made_here.discard(path)


def check(path: Path, arrays: Arrays | None = None, unpack: Collection[str] | None = None) -> None:
    """Look at one file, see ``Probe.check``."""
    check_all([path], arrays, unpack)


def check_all(
    paths: Iterable[Path],
    arrays: Arrays | None = None,
    unpack: Collection[str] | None = None,
) -> None:
    """Look at several files, by one process for all of them; see ``Probe.check``."""
    strange = [path for path in paths if path not in _made_here]
    if not strange:
        return
    with Probe() as probe:
        for path in strange:
            probe.check(path, arrays, unpack)


def check_regular(path: Path) -> None:
    """Refuse what is no file: a pipe would never answer, a device never end. Raises DataError."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable file: {one_line(error)}") from None
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
        kind = next((name for is_kind, name in kinds if is_kind(mode)), "device")
        raise DataError(f"{path}: expected a file, got a {kind}")


def serve() -> None:
    """What the other process does: one look for each line of its input, a path, until there are no more."""
    from lepton_mpi.data.files import stored  # noqa: F401  once, for all looks

    for line in sys.stdin.buffer:
        path, *how = json.loads(line)
        reply = _forked_look(Path(path), *how)
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


def look(path: Path, arrays: Arrays | None = None, unpack: Collection[str] | None = None) -> None:
    """All checks of a file. Raises DataError, and may end the process, whose limits it leaves changed."""
    import h5py

    descriptor = os.open(path, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    _limit(size)
    try:
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise DataError(f"not a readable HDF5 file: {one_line(error)}") from None
        _look_into(file, descriptor, size, arrays, unpack)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except MemoryError:
        raise DataError(
            f"{path}: damaged: asks for more than {_MEMORY_BYTES} bytes of memory"
        ) from None
    except Exception as error:  # of the many kinds that h5py raises about damage
        raise DataError(f"{path}: damaged: {one_line(error)}") from None


def _look_into(
    file,
    descriptor: int,
    size: int,
    arrays: Arrays | None,
    unpack: Collection[str] | None,
) -> None:
    from lepton_mpi.data.files import class_names, stored, trust, used

    only = None if arrays is None else used.judged_names(file, *arrays)
    things = trust.check(file, size, only)
    data_sets = {name: thing for name, thing in things.items() if trust.is_data_set(thing)}
    # What an index of chunks takes grows with them, and a file cannot have more than it has bytes.
    chunks_told = sum(min(stored.chunk_count(one), size) for one in data_sets.values())
    _limit(size, min(chunks_told, stored.CHUNKS_MAX))
    chunks = stored.check_places(data_sets, size)
    _limit(None)  # zlib does what it is told and no more
    for name, found in chunks.items():
        is_whole = unpack is None or any(f"{name}/".startswith(f"{part}/") for part in unpack)
        numbers = range(len(found.lengths)) if is_whole else [found.last]
        stored.check_packed(found, numbers, descriptor, len(os.sched_getaffinity(0)))
    _limit(size)
    trust.check_texts(things, None if only is None else trust.ATTRIBUTES_READ)
    for name in only or ():
        class_names.offered_by(file, name)
    for name, data_set in data_sets.items():
        with trust.naming(name):
            stored.check_last_elements(name, data_set, chunks.get(name), descriptor)


def _limit(file_bytes: int | None, chunk_count: int = 0) -> None:
    """Give this process the time and memory that a file of this size may take from now on; None: no limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cpu = memory = None
    wall = 0  # none
    if file_bytes is not None:
        cpu = time.process_time() + _CPU_SECONDS + file_bytes / _CPU_BYTES_PER_SECOND
        cpu += chunk_count * _CPU_SECONDS_PER_CHUNK
        cpu *= _patience
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + _MEMORY_BYTES
        wall = _WALL_SECONDS + file_bytes / _WALL_BYTES_PER_SECOND
        wall += chunk_count * _WALL_SECONDS_PER_CHUNK
    signal.alarm(math.ceil(wall))
    for kind, limit in ((resource.RLIMIT_CPU, cpu), (resource.RLIMIT_AS, memory)):
        _, hard = resource.getrlimit(kind)
        soft = hard if limit is None else math.ceil(limit)
        is_less = hard == resource.RLIM_INFINITY or soft < hard
        resource.setrlimit(kind, (soft if is_less else hard, hard))


def _forked_look(path: Path, *how: object) -> str | None:
    """What is wrong with a file, found by a process that may die of it."""
    reply, status = _one_look(path, 1, *how)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _OF_TIME:
        reply, status = _one_look(path, _PATIENCE, *how)
    if os.WIFSIGNALED(status) or not reply:
        return f"{path}: damaged: {_cause(status)}"
    return None if reply == b"-" else reply[1:].decode(errors="replace")


def _one_look(path: Path, patience: int, *how: object) -> tuple[bytes, int]:
    """What a process says of it, ``-`` for nothing, and how it ended."""
    global _patience
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            _patience = patience
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):  # the library of C prints when it finds its memory destroyed
                os.dup2(nowhere, stream)
            reply = _what_is_wrong(path, *how)
            os.write(
                writer, b"-" if reply is None else b"!" + reply.encode(errors="replace")[:4000]
            )
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reply = pipe.read()
    _, status = os.waitpid(process, 0)
    return reply, status


def _what_is_wrong(path: Path, *how: object) -> str | None:
    try:
        look(path, *how)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{path}: not a readable file: {one_line(error)}"
    return None


def _cause(status: int) -> str:
    """How a process ended that has not replied, in words."""
    if not os.WIFSIGNALED(status):
        return "the HDF5 library ends the program over it"
    number = os.WTERMSIG(status)
    if number in _OF_TIME:
        return "the HDF5 library comes to no end in it"
    return f"the HDF5 library crashes on it ({signal.Signals(number).name})"
