"""A folder of checkpoints: one is written beside the others, the newest is found, a run's own are told from those of other runs.

A file is written under a temporary name, synced and renamed, and the folder is synced: a kill at any moment leaves the previous one.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lepton_mpi import fault_points
from lepton_mpi.durable import replacing, temporary_name
from lepton_mpi.errors import DataError
from lepton_mpi.run import announcement
from lepton_mpi.run.checkpoint import Checkpoint, verify, write_file
from lepton_mpi.wording import one_line

KEPT = 2
# Looks at a folder whose run removes what was seen before it is read.
TRIES = 5


class Before(NamedTuple):
    """What a folder held when a job took it, so that any of its ranks can tell the job's own files, ``own_now``.

    Attributes
    ----------
    own : tuple of Path
        Checkpoints of the run that it goes on from, oldest first.
    newest_ns : int
        The time of the newest file, of any run; 0 if there was none. ``save`` gives each file a later one than those that are there.
    """

    own: tuple[Path, ...]
    newest_ns: int


def save(
    folder: Path,
    checkpoint: Checkpoint,
    own: list[Path] | None = None,
    kept: int = KEPT,
    mark: str = "",
) -> Path:
    """Write ``folder``/step-XXXXXXXX.h5, read it back, and remove all but the ``kept`` written last of ``own``. One rank calls it.

    Parameters
    ----------
    own
        Files of the same run, oldest first: the new one is added, and what is removed is taken out. Files of other runs
        stay, since somebody may want them, unless they have the name of the new one.
    mark
        Part of the temporary name, of the run; empty: of the process.

    Raises
    ------
    OSError
        Nothing of the new file is left then, and nothing is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.attributes['step']:08d}.h5"
    step = checkpoint.attributes["step"]
    with replacing(path, temporary_name(path, mark)) as temporary:
        fault_points.reached("checkpoint.before_write", step)
        write_file(temporary, checkpoint)
        _make_newest(temporary, [file for file in newest_first(folder) if file != path])
        fault_points.reached("checkpoint.before_rename", step)
    fault_points.reached("checkpoint.after_rename", step)
    if own is not None:
        own[:] = [*(file for file in own if file != path), path]
        while len(own) > kept:
            # The new one is written. What may not be removed stays, such as another user's file in a folder that is shared.
            with suppress(OSError):
                own.pop(0).unlink(missing_ok=True)
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove what runs that were killed have left of files that they wrote. For who owns the folder. Raises OSError.

    What is no file was left by somebody else, and stays.
    """
    for pattern in ("step-*.h5.*.tmp", "step-*.tmp", "best.h5.*.tmp", "owner-*.tmp"):
        for left in folder.glob(pattern):
            status = status_of(left)
            if status and is_file_or_link(status):
                left.unlink(missing_ok=True)
    announcement.remove_leftovers(folder)


def newest_first(folder: Path) -> list[Path]:
    """Checkpoints in a folder, by age and not by step: it may hold the higher steps of an earlier run."""
    found = ((status_of(file), file) for file in folder.glob("step-*.h5"))
    files = [(status.st_mtime_ns, file.name, file) for status, file in found if status]
    return [file for _, _, file in sorted(files, reverse=True)]


def status_of(file: Path) -> os.stat_result | None:
    """Of a checkpoint; of a link itself that leads nowhere; None where nothing is any more, since its run has removed it. Raises OSError."""
    for follows in (True, False):
        with suppress(FileNotFoundError):
            return file.stat(follow_symlinks=follows)
    return None


def is_file_or_link(status: os.stat_result) -> bool:
    """Whether ``status_of`` has found a file, or a link that leads nowhere: no folder, pipe or device."""
    return stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)


def newest_whole(folder: Path) -> tuple[Path, list[str]]:
    """The newest checkpoint of a folder that ``verify`` lets pass, and what is wrong with newer ones. Raises DataError."""
    skipped: list[str] = []
    try:
        for _ in range(TRIES):
            skipped, is_in_use = [], False
            for path in newest_first(folder):
                try:
                    verify(path)
                    return path, skipped
                except DataError as error:
                    skipped.append(f"skipped {error}")
                    is_in_use = is_in_use or status_of(path) is None
            if not is_in_use:  # else its run has removed one, behind a newer one
                break
    except OSError as error:
        raise DataError(f"{folder}: not readable: {one_line(error)}") from None
    found = "; ".join(skipped) or "no file step-….h5"
    raise DataError(f"{folder}: expected a checkpoint that is whole, got none: {found}")


def of_the_same_run(path: Path, kept: int = KEPT) -> list[Path]:
    """``path`` and what its run has kept before it, oldest first: older files of the folder, of lower steps."""
    files = newest_first(path.parent)
    if path not in files:  # moved, or given another name: nobody's to remove
        return []
    older = [file for file in files[files.index(path) + 1 :] if _step(file) < _step(path)]
    return [*older[: kept - 1][::-1], path]


def own_now(folder: Path, before: Before) -> list[Path]:
    """The files of a job that owns the folder all along, oldest first: those it began with that are left, and all it has written."""
    written = [path for path in newest_first(folder) if _written_ns(path) > before.newest_ns]
    left = [path for path in before.own if path.exists() and path not in written]
    return [*left, *reversed(written)]


def step_written(file: Path, before: Before) -> int:
    """The step of a file of ``own_now``; 0 if the job had it when it began."""
    is_new = _written_ns(file) > before.newest_ns
    return int(file.stem.removeprefix("step-")) if is_new else 0


def newest_ns(folder: Path) -> int:
    """See ``Before``."""
    files = newest_first(folder)
    return _written_ns(files[0]) if files else 0


def _written_ns(file: Path) -> int:
    """Its time; 0 where nothing is any more."""
    status = status_of(file)
    return status.st_mtime_ns if status else 0


def _step(path: Path) -> tuple[int, str]:
    """What orders file names by their step."""
    return len(path.name), path.name


def _make_newest(file: Path, others: list[Path]) -> None:
    """Give ``file`` a time after that of ``others``, newest first, also where the clock was put back meanwhile."""
    after = _written_ns(others[0]) + 1 if others else 0
    if file.stat().st_mtime_ns < after:
        os.utime(file, ns=(after, after))
