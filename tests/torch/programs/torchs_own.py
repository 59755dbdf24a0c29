"""torch's own tests of c10d's backends, on lepton: each rank is one of MPI's, in place of a process that a test starts.

``mpirun -n 3 python tests/torch/programs/torchs_own.py RESULTS [NAME …]`` runs those tests that RESULTS has no line of, and adds
"outcome<TAB>test<TAB>reason" for each. A test that leaves a rank waiting ends the job, so ``tests/torch/torchs_own_suite.py`` starts
it again for the rest.

The tests know the names of torch's backends and select themselves by them: here they take lepton for gloo, which has most tests for
the CPU, and where they count ranks for mpi, so that 3 are enough. Process groups are those of lepton.
"""

import os
import sys
import tempfile
import unittest
from datetime import timedelta
from pathlib import Path

from mpi4py import MPI

CONTROL = MPI.COMM_WORLD.Dup()
FOLDER = CONTROL.bcast(tempfile.mkdtemp() if CONTROL.rank == 0 else None)
os.environ |= {"BACKEND": "gloo", "TEMP_DIR": FOLDER, "WORLD_SIZE": str(CONTROL.size)}
os.environ |= {"RANK": str(CONTROL.rank), "MASTER_ADDR": "127.0.0.1"}
for name in ("barrier", "test_dir"):
    Path(FOLDER, name).mkdir(exist_ok=True)
Path(FOLDER, "lockfile").touch()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.testing._internal import common_distributed  # noqa: E402
from torch.testing._internal.common_utils import TestCase  # noqa: E402
from torch.testing._internal.distributed import distributed_test  # noqa: E402

import lepton_mpi.torch  # noqa: E402, F401

os.environ["BACKEND"] = "mpi"
# By words in the name of a test, why it is not run.
NOT_HERE = {
    "cuda": "needs GPUs",
    "multigpu": "needs GPUs",
    "nccl": "of NCCL",
    "barrier_timeout": "a timeout of lepton ends the job, where gloo raises an error",
    "monitored_barrier": "torch has dist.monitored_barrier for gloo alone",
    "sparse_all_reduce": "sparse tensors",
    "get_backend": "asks for the name gloo",
    "Backend_enum": "asks for the name gloo",
    "torchvision": "needs torchvision",
}
SKIPS = {skip.exit_code: skip.message for skip in common_distributed.TEST_SKIPS.values()}


class OnLepton(distributed_test.DistributedTest._DistTestBase, TestCase):
    """The tests, without the processes that they are made for."""

    rank = CONTROL.rank
    world_size = CONTROL.size

    def _should_stop_test_suite(self) -> bool:
        return False


def outcome_of(name: str) -> tuple[str, str]:
    """What became of one test on this rank: passed, skipped or failed, and why."""
    test = OnLepton(name)
    try:
        test.setUp()
        getattr(test, name)()
        test.tearDown()
    except unittest.SkipTest as skip:
        return "skipped", str(skip)
    except SystemExit as left:
        return "skipped", SKIPS.get(left.code, f"sys.exit({left.code})")
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}".split("\n")[0][:200]
    return "passed", ""


def run(name: str, results: Path) -> None:
    """Alone in a process group of its own."""
    reasons = [reason for word, reason in NOT_HERE.items() if word in name]
    if reasons:
        if CONTROL.rank == 0:
            with results.open("a") as file:
                file.write(f"skipped\t{name}\t{reasons[0]}\n")
        return
    if CONTROL.rank == 0:
        with results.open("a") as file:
            file.write(f"started\t{name}\t\n")
        for file in Path(FOLDER, "barrier").iterdir():
            file.unlink()
        for file in Path(FOLDER, "test_dir").iterdir():
            file.unlink()
    path = CONTROL.bcast(tempfile.mktemp(dir=FOLDER) if CONTROL.rank == 0 else None)
    distributed_test.Barrier.barrier_id = 0
    torch.manual_seed(0)
    dist.init_process_group(
        "lepton",
        init_method=f"file://{path}",
        world_size=CONTROL.size,
        rank=CONTROL.rank,
        timeout=timedelta(seconds=30),
    )
    outcomes = [outcome_of(name)]
    # As long as others wait for it, the monitor of the process group watches this rank.
    outcomes = CONTROL.gather(outcomes[0])
    if dist.is_initialized():
        dist.destroy_process_group()
    if CONTROL.rank == 0:
        worst = min(outcomes, key=lambda one: ("failed", "passed", "skipped").index(one[0]))
        with results.open("a") as file:
            file.write(f"{worst[0]}\t{name}\t{worst[1]}\n")


def main(results: Path, names: list[str]) -> None:
    done = set()
    if results.exists():
        done = {line.split("\t")[1] for line in results.read_text().splitlines()}
    done = CONTROL.bcast(done)
    found = sorted(name for name in dir(OnLepton) if name.startswith("test_"))
    for name in names or found:
        if name not in done:
            run(name, results)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
