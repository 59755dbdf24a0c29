"""The peers and their tunings, as data: which environment makes which library fast.

Nobody's best setting is known for every machine, so each tuning here is a candidate: the comparison tries
all of them in a short sweep, per rank count and size, and measures the winners beside the defaults.
"""

from dataclasses import dataclass

# The ways to call an Allreduce are candidates too. gloo has only the first; the tunings do not act on the last.
_FORMS = ("in_place", "out_of_place", "persistent")

# One thread needs no locks, and above this level MPICH does not take its shared-memory path.
_FUNNELED = {"MPI4PY_RC_THREAD_LEVEL": "funneled"}
_GLOO = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Variant:
    """A library with one setting.

    Attributes
    ----------
    library : {"openmpi", "mpich", "intel", "gloo"}
    tuning : str
        Name of the setting; "default" is the library as it comes.
    environment : dict
    """

    library: str
    tuning: str
    environment: dict[str, str]

    @property
    def tuned(self) -> bool:
        """Whether anything was set by hand."""
        return self.tuning != "default"

    @property
    def forms(self) -> tuple[str, ...]:
        """Ways to call it."""
        return _FORMS[:1] if self.library == "gloo" else _FORMS[:2] if self.tuned else _FORMS


def variants(library: str, ranks: int, cores: int) -> list[Variant]:
    """The default, then every tuning worth a try with ``ranks`` ranks on ``cores`` cores."""
    tunings = {"openmpi": _openmpi, "mpich": _mpich, "intel": _intel, "gloo": _gloo}[library]
    common = _GLOO if library == "gloo" else {**_FUNNELED, "LEPTON_MPI": library}
    named = {"default": {}, **tunings(ranks > cores)}
    return [Variant(library, name, {**common, **settings}) for name, settings in named.items()]


def update_variants(library: str, ranks: int, cores: int) -> list[Variant]:
    """``variants``, and those of an MPI that act on Reduce_scatter and Allgather, for ``benchmarks/update.py``."""
    common = variants(library, ranks, cores)
    settings = {"openmpi": _openmpi_slices, "mpich": _mpich_slices, "intel": _intel_slices}[library]
    for name, more in settings(ranks > cores).items():
        common.append(Variant(library, name, {**common[0].environment, **more}))
    return common


def _openmpi_slices(crowded: bool) -> dict[str, dict[str, str]]:
    def tuned(
        scatter: int, scatter_block: int, gather: int, gather_by_counts: int
    ) -> dict[str, str]:
        numbers = {
            "reduce_scatter": scatter,
            "reduce_scatter_block": scatter_block,
            "allgather": gather,
            "allgatherv": gather_by_counts,
        }
        algorithms = {f"OMPI_MCA_coll_tuned_{k}_algorithm": str(v) for k, v in numbers.items()}
        return {
            **({} if crowded else {"OMPI_MCA_mpi_yield_when_idle": "0"}),
            "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
            "OMPI_MCA_btl_sm_eager_limit": "32768",
            **algorithms,
        }

    return {
        "slices, halving": tuned(2, 3, 3, 3),
        "slices, ring": tuned(3, 3, 4, 3),
        "slices, butterfly": tuned(4, 4, 5, 4),
    }


def _mpich_slices(crowded: bool) -> dict[str, dict[str, str]]:
    def tuned(scatter: str, gather: str) -> dict[str, str]:
        chosen = {"REDUCE_SCATTER": scatter, "REDUCE_SCATTER_BLOCK": scatter}
        chosen |= {"ALLGATHER": gather, "ALLGATHERV": gather}
        return {f"MPIR_CVAR_{name}_INTRA_ALGORITHM": value for name, value in chosen.items()}

    return {
        "slices, pairwise": tuned("pairwise", "ring"),
        "slices, halving": tuned("recursive_halving", "recursive_doubling"),
    }


def _intel_slices(crowded: bool) -> dict[str, dict[str, str]]:
    names = ("REDUCE_SCATTER", "REDUCE_SCATTER_BLOCK", "ALLGATHER", "ALLGATHERV")
    shm = _intel(crowded)["shm, yield" if crowded else "shm"]
    return {
        f"slices, preset {number}": {
            **shm,
            **{f"I_MPI_ADJUST_{name}": str(number) for name in names},
        }
        for number in range(1, 5)
    }


def _openmpi(crowded: bool) -> dict[str, dict[str, str]]:
    # run_local.sh lets waiting ranks yield in any case.
    waiting = {} if crowded else {"OMPI_MCA_mpi_yield_when_idle": "0"}

    def tuned(number: int, **more: str) -> dict[str, str]:
        algorithm = {
            "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
            "OMPI_MCA_coll_tuned_allreduce_algorithm": str(number),
        }
        return {**waiting, **algorithm, **more}

    return {
        "recursive doubling": tuned(3),
        "ring": tuned(4),
        "ring, eager 32K": tuned(4, OMPI_MCA_btl_sm_eager_limit="32768"),
        "segmented ring": tuned(5, OMPI_MCA_coll_tuned_allreduce_algorithm_segmentsize="1048576"),
        "rabenseifner": tuned(6),
        # Off by default; halves the time of short messages on 2 ranks.
        "coll/sm, 64K": {
            **waiting,
            "OMPI_MCA_coll_sm_priority": "100",
            "OMPI_MCA_coll_sm_fragment_size": "65536",
        },
    }


def _mpich(crowded: bool) -> dict[str, dict[str, str]]:
    def cells(mib: int, count: int = 4, **more: str) -> dict[str, str]:
        settings = {"MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM": "release_gather", **more}
        for name in ("REDUCE", "BCAST"):
            settings[f"MPIR_CVAR_{name}_INTRANODE_BUFFER_TOTAL_SIZE"] = str(mib << 20)
            settings[f"MPIR_CVAR_{name}_INTRANODE_NUM_CELLS"] = str(count)
        return settings

    # MPICH comes with 32 KiB in 4 cells: a round of waiting for every 8 KiB.
    tunings = {
        "cells 4x256K": cells(1),
        "cells 4x1M": cells(4),
        "cells 4x4M": cells(16),
        "cells 16x256K": cells(4, 16),
        "messages": {"MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM": "mpir"},
    }
    # How often to look before yielding. run_local.sh sets 64 and 10 where ranks share cores, else 10.
    if not crowded:
        return {
            **tunings,
            "cells 4x1M, 1000 polls": cells(4, MPIR_CVAR_POSIX_POLL_FREQUENCY="1000"),
        }
    flat = {
        "MPIR_CVAR_REDUCE_INTRANODE_TREE_KVAL": "64",
        "MPIR_CVAR_REDUCE_INTRANODE_TREE_KVAL_LARGE": "64",
    }
    hasty = {
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "16",
        "MPIR_CVAR_POSIX_POLL_FREQUENCY": "1",
    }
    return {
        **tunings,
        "cells 4x1M, flat": cells(4, **flat),
        "cells 4x1M, hasty": cells(4, **hasty),
        "messages, hasty": {**tunings["messages"], **hasty},
    }


def _intel(crowded: bool) -> dict[str, dict[str, str]]:
    shm = {"I_MPI_FABRICS": "shm"}
    yielding = {**shm, "I_MPI_THREAD_YIELD": "2"} if crowded else shm
    presets = {
        f"preset {number}": {**yielding, "I_MPI_ADJUST_ALLREDUCE": str(number)}
        for number in range(1, 33)
    }
    return {"shm": shm, **({"shm, yield": yielding} if crowded else {}), **presets}


def _gloo(crowded: bool) -> dict[str, dict[str, str]]:
    # torch offers no choice of gloo's algorithm.
    return {}
