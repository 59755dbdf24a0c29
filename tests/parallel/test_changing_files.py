"""Files that are cut short, written to, replaced or unlinked while a run reads them."""

import os
import shutil

import pytest

from lepton_mpi import QuietHook
from lepton_mpi.errors import DataError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.serial.checked_files import with_checksums


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return with_checksums(tmp_path_factory.mktemp("prepared"))


class Change(QuietHook):
    """Does something to the data file after a step."""

    def __init__(self, do, path, step=3):
        self._do, self._path, self._step = do, path, step

    def after_step(self, run):
        if run.step == self._step:
            self._do(self._path)


def _cut(path) -> None:
    os.truncate(path, 5000)


def _empty(path) -> None:
    os.truncate(path, 0)


def _write(path) -> None:
    with open(path, "r+b") as file:
        file.seek(4000)
        file.write(b"?" * 100)
    os.utime(path, ns=(1, 1))  # clocks of file systems are coarse


def _replace(path) -> None:
    other = f"{path}.new"
    shutil.copyfile(path, other)
    os.replace(other, path)


_CHANGES = {
    "cut short": (_cut, "shorter: 5000 bytes, expected"),
    "emptied": (_empty, "shorter: 0 bytes, expected"),
    "written to": (_write, ""),
    "renamed over": (_replace, None),
    "unlinked": (os.unlink, None),
}


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("way", ["mapped", "streamed"])
@pytest.mark.parametrize("file", ["rows.h5", "old.h5"])
def test_a_file_that_changes_in_an_epoch(world, prepared, tmp_path, file, way, change):
    """20 cases: the run ends with file, data set and row, or with the bits of one whose file stayed."""
    if world.size > 1:
        pytest.skip("an error of one rank of several ends the job")
    do, expected = _CHANGES[change]
    path = shutil.copy(prepared / file, tmp_path / file)
    config = Config(
        data=str(path), loader=way, epochs=6, global_batch=32, hidden=(5,), progress="none",
        shuffle="blocks", shuffle_buffer=1000,
    )  # fmt: skip
    if expected is None:
        whole = train(config, world)["weights_digest"]
        assert train(config, world, hooks=[Change(do, path)])["weights_digest"] == whole
        return
    with pytest.raises(DataError) as raised:
        train(config, world, hooks=[Change(do, path)])
    text = str(raised.value)
    assert text.startswith(f"{path}: /train/x: row") and "\n" not in text, text
    assert expected in text or "checksum" in text, text
