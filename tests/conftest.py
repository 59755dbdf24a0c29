"""Which floor is collected, who may print, and how Hypothesis draws.

One plain process collects ``serial`` and ``faults``; a process that mpirun started together with others
collects ``parallel`` only. ``mpirun -n 1 python -m pytest tests/parallel`` names the folder and gets it.
"""

import os
from pathlib import Path

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


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep all ranks but one off the screen."""
    if launcher.launched_rank() > 0:
        chatty = config.pluginmanager.getplugin("terminalreporter")
        config.pluginmanager.unregister(chatty)
        silent = pytest.TerminalReporter(config, open(os.devnull, "w"))  # noqa: SIM115  open until the process ends
        config.pluginmanager.register(silent, "terminalreporter")
