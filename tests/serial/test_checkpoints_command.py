"""``checkpoints FOLDER``: the manifest of a file, what a listing says of each, and what pruning leaves."""

import errno
import json
import os

import h5py
import numpy as np
import pytest

from lepton_mpi.__main__ import main
from lepton_mpi.errors import DataError
from lepton_mpi.run import checkpoint, checkpoint_folder, inventory, vector_digests
from lepton_mpi.run.folder_lock import FolderLock
from lepton_mpi.vectors import digest_of
from tests.serial.made_checkpoints import small_checkpoint


def _flip(path, name):
    """A bit of a vector, past HDF5's own checksum, as of a file that somebody has written anew."""
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        values.reshape(-1).view(np.uint8)[3] ^= 1
        file[name][...] = values


def _said(capsys, *words):
    """Exit code, and the lines on standard output and error."""
    code = main(["checkpoints", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_a_file_has_a_digest_of_each_vector(tmp_path):
    """Of its bytes, whatever the type; a scalar and one without elements, too."""
    saved = small_checkpoint(3, np.float64)
    path = checkpoint_folder.save(tmp_path, saved)
    with h5py.File(path) as file:
        found = json.loads(file["about/digests"][()].tobytes())
    views = saved.layout.views(saved.parameters)
    expected = {f"parameters/{name}": digest_of(view) for name, view in views.items()}
    expected |= {f"optimizer/{name}": digest_of(vector) for name, vector in saved.state.items()}
    shift, scale = map(digest_of, saved.normalisation)
    assert found == expected | {"normalisation/shift": shift, "normalisation/scale": scale}
    assert vector_digests.damaged(path) == []


def test_a_disk_that_loses_bits_removes_nothing(tmp_path, monkeypatch):
    """What is read back is compared before the checkpoint before goes."""
    own = []
    checkpoint_folder.save(tmp_path, small_checkpoint(1), own, kept=1)
    head = checkpoint._head

    def lose(path):
        _flip(path, "optimizer/second_moment")
        return head(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_head", lose)
        with pytest.raises(OSError, match="optimizer/second_moment was not read back") as caught:
            checkpoint_folder.save(tmp_path, small_checkpoint(2), own, kept=1)
    assert caught.value.errno == errno.EIO
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.h5"]
    checkpoint_folder.save(tmp_path, small_checkpoint(3), own, kept=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003.h5"]


def test_a_listing_says_what_is_whole(tmp_path, capsys):
    """And of what is not where it is damaged; the code tells."""
    for step in (7, 8, 9):
        path = checkpoint_folder.save(tmp_path, small_checkpoint(step))
    checkpoint.save_as(tmp_path / "best.h5", small_checkpoint(8))
    code, lines, _ = _said(capsys, tmp_path)
    assert code == 0 and lines[0] == f"{tmp_path}: belongs to no run now"
    assert [line.split()[0] for line in lines[2:]] == [
        *("step-00000009.h5", "step-00000008.h5", "step-00000007.h5", "best.h5")
    ]
    assert [line.split()[1] for line in lines[2:]] == ["9", "8", "7", "8"]
    assert all(line.endswith("whole") for line in lines[2:])
    # Past the checksum of HDF5, then one that HDF5 sees, then half a file.
    _flip(path, "parameters/layer0/weight")
    second = tmp_path / "step-00000008.h5"
    content = bytearray(second.read_bytes())
    with h5py.File(second) as file:
        content[file["optimizer/first_moment"].id.get_chunk_info(0).byte_offset] ^= 1
    second.write_bytes(content)
    best = tmp_path / "best.h5"
    best.write_bytes(best.read_bytes()[:900])
    code, lines, error = _said(capsys, tmp_path)
    by_name = {line.split()[0]: line for line in lines[2:]}
    assert by_name[path.name].endswith("damaged: parameters/layer0/weight")
    assert "/optimizer/first_moment: damaged" in by_name[second.name]
    assert "damaged" in by_name["best.h5"] and by_name["step-00000007.h5"].endswith("whole")
    assert code == 3 and "not whole: " in error


def test_pruning_keeps_the_newest_that_are_whole(tmp_path, capsys):
    """And best.h5; what is damaged goes, and what a killed run has left."""
    paths = [checkpoint_folder.save(tmp_path, small_checkpoint(step)) for step in range(1, 7)]
    checkpoint.save_as(tmp_path / "best.h5", small_checkpoint(3))
    (tmp_path / "step-00000009.h5.abc.tmp").write_text("half")
    (tmp_path / "notes.txt").write_text("mine")
    _flip(paths[4], "parameters/scale")
    os.utime(paths[4], ns=(1, 1))
    code, lines, _ = _said(capsys, tmp_path, "--keep", 2)
    assert code == 0
    removed = [line.rpartition("/")[2] for line in lines if line.startswith("removed")]
    assert removed == [paths[i].name for i in (2, 1, 0, 4)]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"best.h5", "notes.txt", paths[3].name, paths[5].name}


def test_nothing_goes_while_nothing_is_whole(tmp_path):
    """A damaged checkpoint may be all that there is."""
    path = checkpoint_folder.save(tmp_path, small_checkpoint(1))
    _flip(path, "parameters/scale")
    assert inventory.superfluous(inventory.look(tmp_path), 1) == []


def test_a_folder_of_a_run_that_lives_is_not_pruned(tmp_path, capsys):
    """It is listed, with its owner."""
    checkpoint_folder.save(tmp_path, small_checkpoint(1))
    checkpoint_folder.save(tmp_path, small_checkpoint(2))
    lock = FolderLock(tmp_path)
    lock.take()
    code, lines, error = _said(capsys, tmp_path, "--keep", 1)
    assert code == 2 and f"process {os.getpid()} on host" in error
    assert f"belongs to process {os.getpid()} " in lines[0] and lines[0].endswith("which runs")
    lock.release()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_folder_of_checkpoints(tmp_path, capsys):
    """One line each."""
    code, _, error = _said(capsys, tmp_path / "none")
    assert code == 3 and "expected a folder of checkpoints" in error
    assert _said(capsys, tmp_path)[:2] == (
        0,
        [f"{tmp_path}: belongs to no run now", "no checkpoint"],
    )
    with pytest.raises(DataError, match="expected a folder"):
        inventory.look(tmp_path / "none")


@pytest.mark.parametrize("module", [checkpoint, checkpoint_folder])
@pytest.mark.parametrize("times", [1, checkpoint_folder.TRIES])
def test_a_run_that_writes_meanwhile(tmp_path, capsys, monkeypatch, module, times):
    """It removes what was listed, once its next one is there: no damage, and not nothing. Who writes faster is not waited for."""
    own, verify = [], checkpoint.verify
    checkpoint_folder.save(tmp_path, small_checkpoint(1), own, kept=1)

    def slow(path):
        if len(steps) < times:
            steps.append(2 + len(steps))
            checkpoint_folder.save(tmp_path, small_checkpoint(steps[-1]), own, kept=1)
        verify(path)

    steps: list[int] = []
    monkeypatch.setattr(module, "verify", slow)
    if module is checkpoint:
        code, lines, error = _said(capsys, tmp_path)
        if times == 1:
            assert code == 0 and [line.split()[0] for line in lines[2:]] == ["step-00000002.h5"]
        else:
            assert code == 3 and "sooner than they can be read" in error
    elif times == 1:
        assert checkpoint_folder.newest_whole(tmp_path) == (tmp_path / "step-00000002.h5", [])
    else:
        with pytest.raises(DataError, match=r"got none: skipped .*: no such checkpoint"):
            checkpoint_folder.newest_whole(tmp_path)


def test_what_a_run_has_written_anew_is_not_pruned(tmp_path):
    """Between the look and the removal a run may have had the folder."""
    for step in (1, 2):
        checkpoint_folder.save(tmp_path, small_checkpoint(step))
    found = inventory.look(tmp_path)
    again = checkpoint_folder.save(tmp_path, small_checkpoint(1))
    assert inventory.prune(tmp_path, found, 1) == []
    assert again.exists()


def test_a_link_that_leads_nowhere(tmp_path, capsys):
    """It is one checkpoint less; others are found and written beside it."""
    own = []
    checkpoint_folder.save(tmp_path, small_checkpoint(1), own)
    link = tmp_path / "step-00000009.h5"
    link.symlink_to(tmp_path / "archive" / link.name)
    path, skipped = checkpoint_folder.newest_whole(tmp_path)
    assert path == own[0] and skipped == [f"skipped {link}: no such checkpoint"]
    newest = checkpoint_folder.save(tmp_path, small_checkpoint(2), own)
    assert checkpoint_folder.newest_first(tmp_path)[0] == newest
    code, lines, error = _said(capsys, tmp_path)
    assert code == 3 and f"not whole: {link.name}" in error
    assert sum(line.endswith("whole") for line in lines) == 2


def test_names_with_control_characters_are_escaped(tmp_path, capsys):
    """As in messages: a line stays one."""
    folder = tmp_path / "ru\nns\x1b[2J"
    for step in (1, 2):
        path = checkpoint_folder.save(folder, small_checkpoint(step))
    path.rename(folder / "step-\n.h5")
    shown = f"{tmp_path}/ru\\nns\\x1b[2J"
    code, lines, _ = _said(capsys, folder, "--keep", 1)
    assert code == 0 and all(map(str.isprintable, lines)), lines
    assert lines[0] == f"{shown}: belongs to no run now"
    assert lines[2].startswith("step-\\n.h5       ") and lines[3].startswith("step-00000001.h5  ")
    assert lines[4:] == [f"removed {shown}/step-00000001.h5"]


def test_what_is_no_file_is_named_and_left(tmp_path, capsys):
    """Under the name of a checkpoint or of a temporary file; the rest is pruned."""
    for step in (1, 2, 3):
        checkpoint_folder.save(tmp_path, small_checkpoint(step))
    others = ("step-00000099.h5", "step-00000098.h5.abc.tmp")
    for name in others:
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "step-00000097.h5")
    os.utime(tmp_path / others[0], ns=(1, 1))  # behind the others
    code, lines, error = _said(capsys, tmp_path, "--keep", 1)
    states = {line.split()[0]: line for line in lines[2:]}
    assert states[others[0]].endswith("expected a file, got a folder")
    assert states["step-00000097.h5"].endswith("expected a file, got a pipe")
    removed = [line.rpartition("/")[2] for line in lines if line.startswith("removed")]
    assert removed == ["step-00000002.h5", "step-00000001.h5"]
    assert code == 3 and f"not whole: step-00000097.h5, {others[0]}" in error
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step-00000003.h5", "step-00000097.h5", *others}


def test_a_file_that_cannot_be_removed_is_named(tmp_path, capsys, monkeypatch):
    paths = [checkpoint_folder.save(tmp_path, small_checkpoint(step)) for step in (1, 2)]
    unlink = type(tmp_path).unlink

    def refuse(path, missing_ok=False):
        if path == paths[0]:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(type(tmp_path), "unlink", refuse)
    code, _, error = _said(capsys, tmp_path, "--keep", 1)
    assert code == 4 and f"cannot remove {paths[0]}: Permission denied" in error
