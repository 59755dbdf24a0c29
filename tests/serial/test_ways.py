"""Where rows are: which way is taken for which size, and how much memory there is."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.data import ways
from lepton_mpi.data.order import MicroBatches
from lepton_mpi.data.training_order import training_order
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.world.memory import available_bytes
from tests.serial.data_files import load, table, write

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "why_not_mapped", "way"),
    [
        (0, "", "memory"),
        (500, "", "memory"),
        (501, "", "mapped"),
        (800, "", "mapped"),
        (801, "", "streamed"),
        (501, "it is packed", "streamed"),
        (10**15, "it is packed", "streamed"),
    ],
)
def test_the_way_follows_from_the_size(size, why_not_mapped, way):
    """Half of what is free is for copies; up to 0.8 the system may keep the file itself; more is streamed."""
    assert ways.choose("auto", size, why_not_mapped, 1000).name == way


@pytest.mark.parametrize("wanted", ["memory", "mapped", "streamed"])
@pytest.mark.parametrize("size", [0, 10**15])
def test_a_way_that_is_asked_for_is_taken(wanted, size):
    """Whatever is free, and says so."""
    way = ways.choose(wanted, size, "", 0)
    assert way.name == wanted and way.reason.startswith("as asked for; ")


def test_no_memory_is_no_reason_to_fail():
    """Where nothing is known to be free, rows are streamed, and no rows are in memory."""
    assert ways.choose("auto", 1, "", 0).name == "streamed"
    assert ways.choose("auto", 0, "", 0).name == "memory"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 << 40, "3 TiB")],
)
def test_reasons_say_sizes(count, text):
    """In units that people read."""
    reason = ways.choose("auto", count, "", MIB).reason
    assert reason == f"{text} of rows, 1 MiB of memory free"


def test_ways_that_cannot_be_are_refused(tmp_path):
    """With the reason: rows in chunks, of another type, in several files; and the full shuffle of streamed rows."""
    x, y = table(20)
    path = write(tmp_path / "a.h5", {"x": x, "y": y})
    assert load(path, np.float64, way="mapped").way.name == "mapped"
    with pytest.raises(
        ConfigurationError, match=r"--loader mapped: .*: /x: expected float32 as in"
    ):
        load(path, np.float32, way="mapped")
    other = write(tmp_path / "b.h5", {"x": x, "y": y})
    with pytest.raises(ConfigurationError, match=r"--loader mapped: .*expected one file, got 2"):
        load([path, other], np.float64, way="mapped")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=True)
        file["y"] = y
    with pytest.raises(ConfigurationError, match=r"expected rows in one piece, .*got chunks"):
        load(tmp_path / "c.h5", np.float64, way="mapped")
    data = load(path, way="streamed")
    with pytest.raises(ConfigurationError, match=r"--shuffle full: expected rows in memory"):
        training_order(data, MicroBatches(8, 2), 0, "full", MIB)
    assert training_order(data, MicroBatches(8, 2), 0, "auto", MIB).name == "blocks"
    assert training_order(load(path), MicroBatches(8, 2), 0, "auto", MIB).name == "full"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mapped_rows_are_looked_at(tmp_path, value):
    """Before training begins, as those that are copied."""
    x, y = table(20)
    x[13, 1] = value
    path = write(tmp_path / "a.h5", {"x": x, "y": y})
    with pytest.raises(DataError, match=r"a\.h5: /x: row 13: expected finite numbers"):
        load(path, np.float64, way="mapped")


# -- how much memory there is --------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path) -> Path:
    """A machine with 100 MiB available, and no control groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = "MemTotal: 999999 kB\nMemFree: 1 kB\nMemAvailable: 102400 kB\nCached: 5 kB\n"
    (tmp_path / "proc/meminfo").write_text(lines)
    return tmp_path


def _group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        name = name.replace("__", ".")
        (folder / name).write_text(f"{content}\n")


def _belongs_to(root: Path, *lines: str) -> None:
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def test_without_groups_it_is_what_linux_says(root):
    """Also where the process belongs to groups that limit no memory."""
    assert available_bytes(root) == 100 * MIB
    _belongs_to(root, "0::/")
    assert available_bytes(root) == 100 * MIB
    _belongs_to(root, "3:cpu,cpuacct:/a", "0::/user.slice")
    _group(root / "sys/fs/cgroup/user.slice", memory__max="max", memory__current=7)
    assert available_bytes(root) == 100 * MIB


def test_a_group_of_version_2_leaves_its_limit_less_what_is_used(root):
    """Pages of files that nobody uses are given up when they are asked for; active ones count as used."""
    _belongs_to(root, "0::/job")
    group = root / "sys/fs/cgroup/job"
    _group(group, memory__max=50 * MIB, memory__current=20 * MIB)
    assert available_bytes(root) == 30 * MIB
    stat = f"anon 5\ninactive_file_more 1\ninactive_file {4 * MIB}\nactive_file {2 * MIB}"
    _group(group, memory__stat=stat)
    assert available_bytes(root) == 34 * MIB
    _group(group, memory__max=500 * MIB)
    assert available_bytes(root) == 100 * MIB


@pytest.mark.parametrize("tightest", ["", "outer", "outer/inner", "outer/inner/own"])
def test_groups_are_limited_by_those_around_them(root, tightest):
    """The least of all counts, whichever it is; some have no limit."""
    _belongs_to(root, "0::/outer/inner/own")
    base = root / "sys/fs/cgroup"
    for place in ("outer", "outer/inner", "outer/inner/own"):
        _group(base / place, memory__max="max" if place == "outer" else 90 * MIB, memory__current=0)
    assert available_bytes(root) == 90 * MIB
    _group(base / tightest, memory__max=10 * MIB, memory__current=MIB)
    assert available_bytes(root) == 9 * MIB


def test_groups_of_version_1(root):
    """Of the hierarchy that has memory, whose limit is a huge number where there is none."""
    _belongs_to(root, "5:cpu:/x", "4:pids,memory:/slurm/job", "1:name=systemd:/", "0::/")
    base = root / "sys/fs/cgroup/memory"
    names = ("memory__limit_in_bytes", "memory__usage_in_bytes")
    _group(base / "slurm/job", **dict(zip(names, (0x7FFFFFFFFFFFF000, 5), strict=True)))
    assert available_bytes(root) == 100 * MIB
    _group(base / "slurm", **dict(zip(names, (60 * MIB, 20 * MIB), strict=True)))
    _group(base / "slurm", memory__stat=f"inactive_file 1\ntotal_inactive_file {MIB}")
    assert available_bytes(root) == 41 * MIB
    _group(root / "sys/fs/cgroup/x", memory__max=1, memory__current=0)  # belongs to no memory
    assert available_bytes(root) == 41 * MIB


def test_a_container_sees_its_own_group_at_the_top(root):
    """The path of the host names nothing inside; the limit stands where the groups are mounted."""
    _belongs_to(root, "0::/system.slice/docker-1234.scope")
    _group(root / "sys/fs/cgroup", memory__max=30 * MIB, memory__current=10 * MIB)
    assert available_bytes(root) == 20 * MIB


@pytest.mark.parametrize("line", ["0::/../..", "0::/", "0::/a/../../../.."])
def test_paths_lead_nowhere_else(root, line):
    """Nor to an error."""
    _belongs_to(root, line)
    assert available_bytes(root) == 100 * MIB


def test_more_used_than_allowed_leaves_nothing(root):
    """As happens when a limit is lowered."""
    _belongs_to(root, "0::/job")
    _group(root / "sys/fs/cgroup/job", memory__max=5 * MIB, memory__current=20 * MIB)
    assert available_bytes(root) == 0


def test_this_machine_has_some():
    """The real files are read, too."""
    assert available_bytes() > MIB
