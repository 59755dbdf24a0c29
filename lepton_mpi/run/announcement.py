"""How ranks are announced to an ``--elastic`` run that trains: by files in its folder of checkpoints.

    elastic.json         of the run: its process, how many ranks it has, and what a further one takes of memory
    joining.json         of whoever asks, ``python -m lepton_mpi join``: its process, how many ranks are to join
    joining-TOKEN.json   the run's answer, which the asker removes

Each is whole or not there. Who removes joining.json has decided: the run that it takes the ranks, the asker that it does not want them any
more. The run looks for that one name, which costs it a look at the folder an epoch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.run.folder_lock import Owner, make_once, open_at_once

_INVITATION, _REQUEST = "elastic.json", "joining.json"
# Answers that nobody has read so long are left over from askers that were killed.
_UNREAD_SECONDS = 60.0
# Requests of others that go while this one comes.
_TRIES = 10


@dataclass(frozen=True)
class Invitation:
    """What a run says of itself: its process, its ranks, and bytes that a further one takes."""

    owner: Owner
    ranks: int
    rank_bytes: int


@dataclass(frozen=True)
class Request:
    """So many ranks are to join."""

    owner: Owner
    ranks: int


@dataclass(frozen=True)
class Answer:
    """Whether they have joined, and a line for people."""

    is_well: bool
    text: str


def invite(folder: Path, ranks: int, rank_bytes: int) -> None:
    """This process trains, with ``ranks`` ranks. Raises OSError."""
    owner = Owner.here()
    values = {**dataclasses.asdict(owner), "ranks": ranks, "rank_bytes": rank_bytes}
    temporary = _write(folder, owner.token, values)
    os.replace(temporary, folder / _INVITATION)


def invitation(folder: Path) -> Invitation | None:
    """What a run that lives, or may live on another host, has said."""
    values, owner = _read(folder / _INVITATION)
    if owner.is_alive() is False or not owner.token:
        return None
    return Invitation(owner, _number(values, "ranks"), _number(values, "rank_bytes"))


def end_invitation(folder: Path) -> None:
    """This process trains no longer: who asks is told so, and no others can."""
    _, owner = _read(folder / _INVITATION)
    if (owner.pid, owner.process_start) != (os.getpid(), Owner.here().process_start):
        return
    with suppress(OSError):
        (folder / _INVITATION).unlink(missing_ok=True)
        if (request := waiting(folder)) and take(folder, request):
            answer(folder, request, Answer(False, "the run has ended"))


def announce(folder: Path, ranks: int) -> Request:
    """Ask for so many. Raises ConfigurationError if somebody else does, and OSError."""
    owner = Owner.here()
    path = folder / _REQUEST
    text = json.dumps({**dataclasses.asdict(owner), "ranks": ranks}).encode()
    for _ in range(_TRIES):
        if make_once(_temporary(folder, owner.token), path, text):
            return Request(owner, ranks)
        if other := waiting(folder):
            raise ConfigurationError(
                f"{folder}: expected nobody else who asks for ranks, got {other.owner}; wait until the run has taken those"
            )
    raise ConfigurationError(f"{path}: whoever wrote it is gone, and it cannot be removed")


def waiting(folder: Path) -> Request | None:
    """The request that the run has not taken, of a process that lives; removes that of one that is gone."""
    path = folder / _REQUEST
    if not os.path.exists(path):  # as well where the file server does not answer for a moment
        return None
    values, owner = _read(path)
    ranks = _number(values, "ranks")
    if owner.is_alive() is False or not owner.token or ranks < 1:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    return Request(owner, ranks)


def take(folder: Path, request: Request) -> bool:
    """Take a request, for the run, or take it back, for whoever asked; False if that was done before."""
    _, owner = _read(folder / _REQUEST)
    if owner.token != request.owner.token:
        return False
    try:
        (folder / _REQUEST).unlink()
    except OSError:
        return False
    return True


def answer(folder: Path, request: Request, said: Answer) -> None:
    """Of the run, to a request that it has taken, unless nobody waits for it. Raises OSError."""
    if request.owner.is_alive() is not False:
        temporary = _write(folder, request.owner.token, dataclasses.asdict(said))
        os.replace(temporary, _answer_path(folder, request))


def answer_to(folder: Path, request: Request) -> Answer | None:
    """The run's answer, once."""
    path = _answer_path(folder, request)
    values, _ = _read(path)
    if not values:
        return None
    path.unlink(missing_ok=True)
    return Answer(bool(values.get("is_well")), str(values.get("text", "")))


def remove_leftovers(folder: Path) -> None:
    """What processes that were killed have left. For who owns the folder. Raises OSError."""
    if invitation(folder) is None:
        (folder / _INVITATION).unlink(missing_ok=True)
    waiting(folder)
    for path in (*folder.glob("joining-*.json"), *folder.glob("joining-*.tmp")):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _UNREAD_SECONDS:
                path.unlink()


def _answer_path(folder: Path, request: Request) -> Path:
    return folder / f"joining-{request.owner.token}.json"


def _temporary(folder: Path, token: str) -> Path:
    return folder / f"joining-{token}.tmp"


def _write(folder: Path, token: str, values: Mapping[str, Any]) -> Path:
    """A file of its own name, which is given its own afterwards."""
    path = _temporary(folder, token)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def _read(path: Path) -> tuple[dict[str, Any], Owner]:
    """What anybody may have written; nothing where that cannot be read."""
    try:
        with open_at_once(path) as file:
            text = file.read(4096)
        values = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}, Owner()
    return (values, Owner.of(text)) if isinstance(values, dict) else ({}, Owner())


def _number(values: Mapping[str, Any], name: str) -> int:
    found = values.get(name)
    return found if type(found) is int else 0
