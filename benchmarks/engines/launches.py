"""Which engines there are, and the command that starts each of them on a case."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.engines.networks import NETWORKS
from benchmarks.harness import Launch, mpi_command
from benchmarks.peers.environment import (
    KERAS,
    SET_UP_LIMIT_SECONDS,
    SKLEARN,
    TORCH,
    Environment,
    try_out,
)

# The first launch of a network compiles it in several ways, on 8 ranks with a quarter of a core for each.
_LIMIT_SECONDS, _NETWORK_LIMIT_SECONDS = 600.0, 3600.0


@dataclass(frozen=True)
class Peer:
    """Another library's engine: its program, where that runs, and whether it has several ranks, and networks of layers."""

    name: str
    module: str
    environment: Environment
    has_ranks: bool = False
    has_networks: bool = False

    def launch(self, case: tuple[str, ...], ranks: int, threads: int) -> Launch:
        """Its run of a case, given as options of ``cases.parser``."""
        words = (*case, "--threads", str(threads))
        if self.has_ranks:
            words += ("--ranks", str(ranks))
        label = f"{self.name} n={ranks} threads={threads}"
        environment = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
        command = (self.environment.python, "-m", self.module, *words)
        return Launch(label, command, environment, _limit_seconds(case))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch", "benchmarks.engines.torch_engine", TORCH, has_ranks=True, has_networks=True),
        Peer("keras", "benchmarks.engines.keras_engine", KERAS),
        Peer("sklearn", "benchmarks.engines.sklearn_engine", SKLEARN),
    )
}


def set_up(peer: Peer) -> str | None:
    """Make the peer's environment if need be, and try it out.

    Returns its version, or None after printing why it has to be left out.
    """
    trial = peer.launch(case_options("logistic-30", 8, 2, 2), 1, 1)
    limited = Launch(trial.label, trial.command, trial.environment, SET_UP_LIMIT_SECONDS)
    return try_out(peer.name, peer.environment, limited)


def case_options(model: str, rows_per_rank: int, steps: int, epochs: int) -> tuple[str, ...]:
    """What every engine's program is told."""
    return (
        *("--case", model, "--rows-per-rank", str(rows_per_rank)),
        *("--steps", str(steps), "--epochs", str(epochs)),
    )


def launches(
    case: tuple[str, ...], rank_counts: Iterable[int], peers: Iterable[Peer], micro_rows: int = 0
) -> list[Launch]:
    """One of each engine that has the case, on each of its numbers of ranks and threads; ``micro_rows`` is for this engine."""
    made = []
    is_network = case[1] in NETWORKS
    peers = [peer for peer in peers if peer.has_networks or not is_network]
    more = ("--micro-rows", str(micro_rows)) if micro_rows else ()
    for ranks in rank_counts:
        for allreduce in ("auto",) if ranks == 1 else ("auto", "mpi"):
            words = ("-m", "benchmarks.engines.lepton", *case, "--allreduce", allreduce, *more)
            command, limit = mpi_command(ranks, *words), _limit_seconds(case)
            made.append(Launch(f"lepton_mpi {allreduce} n={ranks}", command, {}, limit))
        for peer in peers:
            if ranks == 1:
                made += [peer.launch(case, 1, threads) for threads in (1, 2)]
            elif peer.has_ranks:
                made.append(peer.launch(case, ranks, 1))
    return made


def _limit_seconds(case: tuple[str, ...]) -> float:
    return _NETWORK_LIMIT_SECONDS if case[1] in NETWORKS else _LIMIT_SECONDS
