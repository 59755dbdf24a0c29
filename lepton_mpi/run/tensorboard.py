"""``--tensorboard``: scalars of every epoch, and within long ones, by the library tensorboardX, an extra that is imported here alone.

    loss/training   loss/validation   accuracy/…       figures, by optimizer step
    learning_rate
    time/seconds    time/evaluation_seconds   time/samples_per_second   time/waiting_share …
    within_epoch/…                                       rank 0's figures so far, every 10 s

A run that goes on has TensorBoard drop what was written for later steps than it begins with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.extras import pip_install

if TYPE_CHECKING:
    from lepton_mpi.run.progress import SoFar

_TIMES = ("seconds", "evaluation_seconds", "samples_per_second")


class TensorBoard:
    """The files of a run in a folder.

    Parameters
    ----------
    folder : str
    step : int or None
        Last step before a run that goes on. None for a run that begins: then the folder must have no files of another.

    Raises
    ------
    ConfigurationError
        The library is missing, or the folder has files of a run.
    LauncherError
        Nothing can be written there.
    """

    def __init__(self, folder: str, step: int | None) -> None:
        try:
            from tensorboardX import summary
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError:
            raise ConfigurationError(
                f"--tensorboard: expected tensorboardX, got none; {pip_install('tensorboard')}"
            ) from None
        self._folder, self._event, self._scalar = folder, Event, summary.scalar
        before = len(list(Path(folder).glob("events.out.tfevents.*")))
        if step is None and before:
            raise ConfigurationError(
                f"--tensorboard: expected a folder without files of another run, got {folder}; take another name, or go on with --resume"
            )
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            # Not SummaryWriter: its thread ends at a full disk without a word, and then what hands it values waits for ever.
            # Its names are of whole seconds, and a file of that name is written over.
            suffix = f".{before}" if before else ""
            self._writer: Any = EventsWriter(str(Path(folder, "events")), suffix)
            if step is not None:
                begin = SessionLog(status=SessionLog.START)
                self._writer.write_event(Event(wall_time=time(), step=step + 1, session_log=begin))
            self._writer.flush()
        except OSError as error:
            raise self._failed(error) from None

    def epoch_goes_on(self, now: SoFar, step: int, learning_rate: float) -> None:
        """Scalars of the epoch so far."""
        values = {
            **now.figures,
            "learning_rate": learning_rate,
            "samples_per_second": now.samples_per_second,
            "waiting_share": now.waiting,
        }
        self._write({f"within_epoch/{name}": value for name, value in values.items()}, step)

    def epoch_ends(self, values: Mapping[str, float]) -> None:
        """Scalars of an epoch."""
        step = int(values["step"])
        tagged = {tag(name): value for name, value in values.items() if name != "step"}
        self._write(tagged, step)

    def close(self) -> None:
        """All is in the file. Raises LauncherError."""
        try:
            self._writer.close()
        except OSError as error:
            raise self._failed(error) from None

    def _write(self, values: Mapping[str, float], step: int) -> None:
        try:
            for name, value in values.items():
                event = self._event(wall_time=time(), step=step, summary=self._scalar(name, value))
                self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> LauncherError:
        return LauncherError(f"cannot write to {self._folder}: {error.strerror or error}")


def tag(name: str) -> str:
    """Where TensorBoard shows a number: figures of training and validation beside each other.

    >>> [tag(name) for name in ("loss", "val_loss", "learning_rate", "seconds", "waiting_share", "epoch")]
    ['loss/training', 'loss/validation', 'learning_rate', 'time/seconds', 'time/waiting_share', 'epoch']
    """
    if name in _TIMES or name.endswith("_share"):
        return f"time/{name}"
    if name in ("learning_rate", "epoch"):
        return name
    if name.startswith("val_"):
        return f"{name.removeprefix('val_')}/validation"
    return f"{name}/training"
