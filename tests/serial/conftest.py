"""Fixtures of the serial floor."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], str]:
    """Writes a TOML file and returns its path."""

    def write(text: str) -> str:
        (tmp_path / "options.toml").write_text(text)
        return str(tmp_path / "options.toml")

    return write
