"""Fixtures of the serial floor."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lepton_mpi.data.files import probe


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], str]:
    """Writes a TOML file and returns its path."""

    def write(text: str) -> str:
        (tmp_path / "options.toml").write_text(text)
        return str(tmp_path / "options.toml")

    return write


@pytest.fixture(scope="session", autouse=True)
def one_probe() -> Iterator[None]:
    """Files are looked at as ever, but by one process for all tests, which saves a start of Python for each."""
    with ExitStack() as until_the_end, pytest.MonkeyPatch.context() as patched:
        probes: list[probe.Probe] = []

        def check(path: Path, *how: object) -> None:
            if not probes:
                probes.append(until_the_end.enter_context(probe.Probe()))
            probes[0].check(path, *how)

        def check_all(paths: list[Path], *how: object) -> None:
            for path in paths:
                check(path, *how)

        patched.setattr(probe, "check", check)
        patched.setattr(probe, "check_all", check_all)
        yield
