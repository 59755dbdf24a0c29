"""What ``export`` refuses, and what it leaves then: nothing."""

import subprocess
import sys

import pytest

from lepton_mpi import durable
from lepton_mpi.commands.export import COMMAND
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.exporting import export, named_arrays
from lepton_mpi.options.names import EXPORTS
from tests.serial.exported import (
    CASES,
    exported,
    loaded,
    saved,
)
from tests.serial.thread_ranks import on_ranks


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["c"], "expected CHECKPOINT FILE, got only 'c'"),
        (
            ["c", "m.pt"],
            "FILE: expected a name that ends in .onnx, .safetensors, .weights.h5 or .npz, got m.pt",
        ),
        (
            ["c", "m.h5"],
            "FILE: expected a name that ends in .onnx, .safetensors, .weights.h5 or .npz, got m.h5",
        ),
        (
            ["c", "m.onnx", "--torch"],
            "--torch: expected a FILE that ends in .safetensors, got m.onnx",
        ),
        (
            ["c", "m.npz", "--preprocess"],
            "--preprocess: expected a FILE that ends in .onnx, got m.npz",
        ),
    ],
)
def test_words_that_are_refused(words, line):
    """Before anything is loaded."""
    with pytest.raises(ConfigurationError) as caught:
        COMMAND.read(words)
    assert str(caught.value) == line


def test_files_that_are_there_and_folders_that_are_not(tmp_path):
    """The first one stays as it is."""
    path = saved(tmp_path, CASES["mlp relu"])
    file = tmp_path / "m.npz"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"FILE: .*m\.npz exists; --force writes over it"):
        exported(path, file)
    assert file.read_text() == "mine"
    assert exported(path, file, force=True).stat().st_size > 1000
    with pytest.raises(ConfigurationError, match="expected a file in a folder that exists"):
        exported(path, tmp_path / "none" / "m.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ConfigurationError, match="expected a file in a folder that exists"):
        exported(path, tmp_path / "folder.npz", force=True)
    with pytest.raises(DataError, match="no such checkpoint"):
        exported(tmp_path / "none.h5", tmp_path / "n.npz")
    assert {each.name for each in tmp_path.iterdir()} == {"runs", "m.npz", "folder.npz"}


def test_the_checkpoint_itself_is_not_written_over(tmp_path):
    """Whatever it is called."""
    path = saved(tmp_path, CASES["mlp relu"])
    own = path.rename(tmp_path / "own.weights.h5")
    before = own.read_bytes()
    with pytest.raises(ConfigurationError, match="expected another file than"):
        exported(own, own, force=True)
    assert own.read_bytes() == before


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    """One line, and nothing is left of the file."""
    path = saved(tmp_path, CASES["mlp relu"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "replace_durably", full)
    for suffix in EXPORTS:
        with pytest.raises(LauncherError, match=r"cannot write .*: No space left on device"):
            exported(path, tmp_path / f"m{suffix}")
    assert not list(tmp_path.glob("m*"))


def test_without_the_library(tmp_path, monkeypatch):
    """The line has the pip command."""
    path = saved(tmp_path, CASES["mlp relu"])
    for name in [name for name in sys.modules if name.startswith("lepton_mpi.exporting.onnx_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("lepton_mpi.exporting.onnx_model", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(LauncherError, match=r"pip install 'onnx>=1.13'"):
        exported(path, tmp_path / "m.onnx")


def test_a_model_that_is_too_large_for_a_file_of_onnx(tmp_path, monkeypatch):
    """Protobuf ends at 2 GiB, here earlier: at less than the parameters have, and than the constants of groups in float64."""
    path = saved(tmp_path, CASES["speech_cnn batch"], "float64")
    from lepton_mpi.exporting import onnx_model

    for limit in (1000, 7000):
        monkeypatch.setattr(onnx_model, "BYTES_MAX", limit)
        with pytest.raises(ConfigurationError, match=r"at most .*\.safetensors and \.npz"):
            exported(path, tmp_path / "m.onnx")


def test_several_ranks_write_one_file(tmp_path):
    """All of them end alike, with the file or with the error."""
    path = saved(tmp_path, CASES["mlp relu"])
    from lepton_mpi.commands.export import Options, export_checkpoint

    options = Options(checkpoint=str(path.parent), file=str(tmp_path / "m.npz"))
    on_ranks(3, lambda world: export_checkpoint(options, world))
    assert (tmp_path / "m.npz").exists()
    with pytest.raises(ConfigurationError, match="exists"):
        on_ranks(3, lambda world: export_checkpoint(options, world))


def test_the_program_is_all_that_is_no_comment(tmp_path):
    """So that it can be written to a file; of a folder, too."""
    path = saved(tmp_path, CASES["mlp relu"])
    words = ["export", str(path.parent), str(tmp_path / "m.safetensors"), "--torch"]
    ended = subprocess.run(
        [sys.executable, "-m", "lepton_mpi", *words], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    first, *_ = ended.stdout.splitlines()
    assert first.startswith("# checkpoint ") and first.endswith("the newest that is whole")
    compile(ended.stdout, "program", "exec")
    assert "load_file('m.safetensors')" in ended.stdout
    arrays = named_arrays.by_torch(export.subject_of(loaded(path), None))
    assert set(arrays) == {f"layer{n}.{kind}" for n in range(3) for kind in ("weight", "bias")}
