"""Which floor is collected, which tests are quick, who may print, and how Hypothesis draws.

One plain process collects ``serial`` and ``faults``; a process that mpirun started together with others
collects ``parallel`` only. ``mpirun -n 1 python -m pytest tests/parallel`` names the folder and gets it.
"""

import math
import os
import signal
from collections import defaultdict
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import Phase, settings

from lepton_mpi import launcher

_TESTS = Path(__file__).parent
# What the user has tuned must not change what is tested.
os.environ["LEPTON_TUNING"] = str(_TESTS / "no-such-folder")
_MANY = launcher.launched_size() > 1

settings.register_profile("serial", deadline=None, print_blob=True)
# Every rank must draw the same examples, and shrinking would follow one rank's failures.
settings.register_profile(
    "parallel",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("parallel" if _MANY else "serial")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the floors that do not fit the way in which this process was started."""
    floor = next(
        (part for part in ("serial", "parallel", "faults") if collection_path == _TESTS / part),
        None,
    )
    if floor is None:
        return None
    wanted = floor == "parallel" if _MANY else floor != "parallel" or _named(config, floor)
    return None if wanted else True


def _named(config: pytest.Config, floor: str) -> bool:
    """Whether the command line asks for the floor itself or for something in it."""
    folder = _TESTS / floor
    paths = [Path(config.invocation_params.dir, str(word).split("::")[0]) for word in config.args]
    return any(path.resolve().is_relative_to(folder) for path in paths)


# Of seven equal parts of the parallel floor, those that --quick runs on so many ranks. Each is run on two ranks at least, since what
# needs several is skipped on one.
_QUICK_PARTS = {1: (0,), 2: (0, 1, 2), 3: (3, 4), 4: (5, 6)}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --quick."""
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out what is marked slow; of tests on ranks take this number's part, so that runs on 1, 2, 3 and 4 ranks together have each test",
    )


def _is_quick(item: pytest.Item, variant: int, variants: int) -> bool:
    slow = item.get_closest_marker("slow")
    if slow is None:
        return True
    return "but_every" in slow.kwargs and variant < math.ceil(variants / slow.kwargs["but_every"])


def _shuffled(variants: list[pytest.Item]) -> list[pytest.Item]:
    """By their names: in the order of collection every Nth may have the same value of a parameter."""
    return sorted(variants, key=lambda item: crc32(item.nodeid[::-1].encode()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what --quick does not run. All ranks leave out the same."""
    if not config.getoption("--quick"):
        return
    parts = _QUICK_PARTS.get(launcher.launched_size(), range(7))
    functions: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        functions[item.nodeid.partition("[")[0]].append(item)
    quick = {
        item
        for variants in functions.values()
        for number, item in enumerate(_shuffled(variants) if len(variants) > 4 else variants)
        if _is_quick(item, number, len(variants))
    }
    taken, left_out = [], []
    for item in items:
        # Of the name, so that a new test moves no other, and variants are spread.
        is_here = (
            not item.path.is_relative_to(_TESTS / "parallel")
            or crc32(item.nodeid.encode()) % 7 in parts
        )
        (taken if is_here and item in quick else left_out).append(item)
    items[:] = taken
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep all ranks but one off the screen, and have Ctrl-C in the programs of tests: a shell's background job ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if launcher.launched_rank() > 0:
        chatty = config.pluginmanager.getplugin("terminalreporter")
        config.pluginmanager.unregister(chatty)
        silent = pytest.TerminalReporter(config, open(os.devnull, "w"))  # noqa: SIM115  open until the process ends
        config.pluginmanager.register(silent, "terminalreporter")
