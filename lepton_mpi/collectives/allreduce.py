"""One door to every way of summing a vector over all ranks: ``make_plan``.

algorithm       by                                         order of additions
auto            what was measured to be fastest; untuned: host on one host, two_level on several
host            memory shared by the one host              canonical
two_level       host memory, and lanes between hosts       canonical
ring, …         messages, any schedule of algorithms.py    the schedule's
mpi             MPI's Allreduce                            the library's
mpi_persistent  MPI-4's Allreduce_init                     the library's
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_mpi.collectives.between_hosts.copied_plan import make_copied_plan
from lepton_mpi.collectives.between_hosts.two_level_plan import TwoLevelPlan
from lepton_mpi.collectives.choosing.tuning import Choice, choose
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mpi import MpiAllreducePlan, MpiTransport
from lepton_mpi.collectives.messages.plan import DTYPES, MessagePlan
from lepton_mpi.collectives.schedules.algorithms import ALGORITHMS
from lepton_mpi.collectives.within_host.flags import HostMeeting
from lepton_mpi.collectives.within_host.plans import HostArrayPlan, HostBarrier, HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors
from lepton_mpi.errors import ConfigurationError

MODES = ("shared", "private", "array")
# Those whose result all ranks of a host may see in one memory; the others give every rank its own.
SHARING = ("auto", "host", "two_level")
OPERATIONS = ("sum", "max", "min")
NAMES = (
    "auto",
    "host",
    "two_level",
    *(name for name in ALGORITHMS if name != "two_level"),
    "mpi",
    "mpi_persistent",
)


@dataclass
class Plan:
    """A way to sum one vector, ready to run as often as wanted.

    Attributes
    ----------
    algorithm, reason : str
        What was chosen, and why.
    inputs : list of arrays, shape (count,)
        This rank's contributions, to be filled before every run, since a run may leave anything in them; one unless the
        rank holds another number of tree nodes.
    result : array, shape (count,)
        The sum after ``run``. In mode "shared" all ranks of a host see the same memory; else it is the
        rank's own, in place of its contribution. In place and "shared" it is in the memory of some rank's contribution.
    release : callable
        For a sum in place in mode "shared": every rank calls it between reading the result and filling ``inputs`` again. A
        rank whose contribution was overwritten waits there until all of its host have called it. For other sums nobody
        needs to, and it does nothing. Takes and returns nothing.
    run : callable
        Sums once, without arguments. Collective over the group.
    """

    algorithm: str
    reason: str
    inputs: list[np.ndarray]
    result: np.ndarray
    _executor: Any
    release: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        # Not a method that calls another: a short allreduce takes 400 ns.
        self.run = self._executor.run

    @property
    def input(self) -> np.ndarray:
        """This rank's only contribution."""
        (only,) = self.inputs
        return only

    @property
    def wait_seconds(self) -> float:
        """Time spent waiting for the first message of slower ranks, where that can be told."""
        return self._executor.wait_seconds


def make_plan(
    group: Group,
    count: int | None = None,
    dtype: Any = np.float32,
    *,
    mode: str = "private",
    in_place: bool = False,
    array: np.ndarray | None = None,
    op: str = "sum",
    algorithm: str = "auto",
) -> Plan:
    """Plan an allreduce. Collective over ``group``; every rank with the same arguments.

    Parameters
    ----------
    group : Group
        The ranks: the ``World`` that ``lepton_mpi.world.world.run(function)`` hands to ``function``, or what its ``group``
        makes of some of them. ``lepton_mpi/world/__init__.py`` has a whole program.
    count, dtype
        Of the vector, for modes "shared" and "private", whose memory the plan owns.
    mode : {"shared", "private", "array"}
        How the vector is handed over; ``within_host/vectors.py`` tells what each costs. "array" sums ``array`` in place.
    in_place : bool
        For mode "shared"; sums of the other modes always are. The sum overwrites the contribution of one rank of each host
        or, with several hosts, of some: a vector less to hold, and 2 ranks that share a cache of 32 MiB sum 16 MiB in 0.25
        ms in place of 0.6. The price: until all ranks of a host have read a sum, none of them may fill its input again. Call
        ``release`` of the plan in between.
    array : float32, float64, int32 or int64, shape (n,), contiguous and writable
        For mode "array".
    op : {"sum", "max", "min"}
        Of floats, a maximum or minimum is NaN if one of them is, and +0 is above -0: the same bits on every rank, by every
        algorithm.
    algorithm : str
        One of ``NAMES``.

    Raises
    ------
    ConfigurationError
        On every rank, before any data move: unknown or unfitting arguments.
    RankError
        The same for arguments that differ between ranks, with the ranks and what each of them gave.
    """
    count, dtype = _agreed_vector(group, count, dtype, mode, in_place, array, op, algorithm)
    choice = choose(group, algorithm, mode, count * dtype.itemsize, reproducible=False)
    if choice.algorithm in ("host", "two_level"):
        if group.host_count == 1 and array is not None:
            executor = HostArrayPlan(group, array, op)
            return Plan(choice.algorithm, choice.reason, [array], array, executor)
        return _host_or_two_level(group, count, dtype, mode, in_place, array, op, choice)
    buffer = np.zeros(count, dtype) if array is None else array
    return _over_messages(group, buffer, op, choice)


def _agreed_vector(
    group: Group,
    count: int | None,
    dtype: Any,
    mode: str,
    in_place: bool,
    array: np.ndarray | None,
    op: str,
    algorithm: str,
) -> tuple[int, np.dtype]:
    """Length and dtype of the vector, once all ranks are known to ask for the same; see ``make_plan``. Collective."""
    with group.agreeing():
        check_arguments(mode, array, op, algorithm, group)
        if array is None and not (isinstance(count, int | np.integer) and count >= 0):
            raise ConfigurationError(
                f"allreduce: count: expected a whole number >= 0, got {count!r}"
            )
        if not isinstance(in_place, bool):
            raise ConfigurationError(
                f"allreduce: in_place: expected True or False, got {in_place!r}"
            )
    if array is not None:
        count, dtype = array.size, array.dtype
    dtype = np.dtype(dtype)
    group.agree_on(
        "the allreduce (elements, dtype, operation, mode, in place, algorithm)",
        (count, dtype.name, op, mode, in_place, algorithm),
    )
    with group.agreeing():
        if dtype.name not in DTYPES or not dtype.isnative:
            raise ConfigurationError(f"allreduce: expected dtype {', '.join(DTYPES)}, got {dtype}")
    assert count is not None  # or there were no array
    return int(count), dtype


def _over_messages(group: Group, buffer: np.ndarray, op: str, choice: Choice) -> Plan:
    """By MPI's own allreduce, or by a schedule over MPI's messages."""
    algorithm, reason = choice.algorithm, choice.reason
    if algorithm in ("mpi", "mpi_persistent"):
        executor = MpiAllreducePlan(
            buffer, group.collective_comm, op, persistent=algorithm == "mpi_persistent"
        )
    else:
        executor = MessagePlan(
            ALGORITHMS[algorithm], buffer, MpiTransport(group.collective_comm), operation=op
        )
    return Plan(algorithm, reason, [buffer], buffer, executor)


def check_arguments(
    mode: str, array: np.ndarray | None, op: str, algorithm: str, group: Group
) -> None:
    for what, value, known in (
        ("mode", mode, MODES),
        ("op", op, OPERATIONS),
        ("algorithm", algorithm, NAMES),
    ):
        if value not in known:
            raise ConfigurationError(
                f"allreduce: {what}: expected one of {', '.join(known)}, got {value!r}"
            )
    if (array is not None) != (mode == "array"):
        raise ConfigurationError("allreduce: mode array, and no other, takes an array")
    if array is not None and (
        array.ndim != 1 or not array.flags.c_contiguous or not array.flags.writeable
    ):
        raise ConfigurationError(
            f"allreduce: rank {group.rank}: expected a writable, contiguous vector, got shape {array.shape}, "
            f"strides {array.strides}, writable {array.flags.writeable}; pass array.copy() and copy the sum back"
        )
    if mode == "shared" and algorithm not in SHARING:
        raise ConfigurationError(
            f"allreduce: mode shared: expected algorithm {', '.join(SHARING)}, got {algorithm}, which gives every rank a "
            "result of its own; take mode private"
        )
    if algorithm == "host" and group.host_count > 1:
        raise ConfigurationError(
            f"allreduce: algorithm host: expected one host, got {group.host_count}; take two_level"
        )


def _host_or_two_level(
    group: Group,
    count: int,
    dtype: np.dtype,
    mode: str,
    in_place: bool,
    array,
    op: str,
    choice: Choice,
) -> Plan:
    one_host = group.host_count == 1
    vectors = HostVectors(
        *(group, count, dtype, "private" if mode == "private" and one_host else "shared"),
        in_place=in_place and mode == "shared",
    )
    words = choice.algorithm, choice.reason
    if one_host or mode == "shared":
        executor = (HostPlan if one_host else TwoLevelPlan)(vectors, operation=op)
        plan = Plan(*words, vectors.inputs, vectors.result, executor)
        if in_place and mode == "shared":
            waits = vectors.overwrites_own
            plan.release = (HostBarrier(group, waits) if one_host else HostMeeting(group)).run
        return plan
    own = vectors.inputs[0] if array is None else array
    return Plan(*words, [own], own, make_copied_plan(own, vectors, op))
