"""What the READMEs show is carried out, with small files of their names; output is compared up to times and the machine."""

import json
import re
from pathlib import Path
from pydoc_data.topics import topics

import h5py
import numpy as np
import pytest

from tests import pages
from tests.faults import command_driver, jobs
from tests.pages import PAGES, ROOT, Shown
from tests.serial.raw_files import (
    images,
    write_csv,
    write_raw_files,
    write_sounds,
    write_torch_resnet,
)

# Pages whose commands need several ranks, or that are the first; a start of each rank takes most of the time.
_ON_TWO_RANKS = (ROOT / "README.md", ROOT / "lepton_mpi/collectives/README.md")
# Those of torch and jax need these libraries: tests/torch/test_pages.py.
_NOT_CARRIED_OUT = ("benchmarks", "results", "tests", "torch", "jax")
_CARRIED_OUT = [page for page in PAGES if page.parts[-2] not in _NOT_CARRIED_OUT]

# Take minutes, another machine or a library that the tests do without; ``test_readme.py`` parses them.
_NOT_HERE = re.compile(
    r" tune$| doctor|prepare images|benchmarks\.|COMMAND|FILE|…|-m venv|--version|shards|text_gpt|words_| sweep|--sweep| chaos |generate runs|my_ddp|table_of_ends|--elastic| join runs"
)


def _words(shown: Shown) -> list[str] | None:
    """Those behind ``python``; None for what is not carried out here."""
    words = shown.words
    if "python" not in words or _NOT_HERE.search(shown.text.partition("  #")[0].rstrip()):
        return None
    return words[words.index("python") + 1 :]


def _inputs(folder: Path) -> None:
    """All files that the commands name."""
    write_raw_files(folder)
    write_sounds(folder / "sounds")
    write_torch_resnet(folder / "resnet8.safetensors")
    write_torch_resnet(folder / "resnet18.safetensors", "resnet18", (32, 32, 3))
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 4)).round(3)
    write_csv(folder / "table.csv", np.column_stack([x, x[:, 0] > 0]).tolist(), *"abcd", "NAME")
    prices = (x[:, 0] * 2 + x[:, 1]).round(3)
    write_csv(folder / "houses.csv", np.column_stack([x, prices]).tolist(), *"abcd", "price")
    (folder / "book.txt").write_text("It was the best of times, it was the worst of times. " * 40)
    (folder / "stories.txt").write_text("<|endoftext|>".join(topics.values())[:80_000])
    for name in ("table", "rows", "houses"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["train/x"] = x
            file["train/y"] = prices if name == "houses" else (x[:, 0] > 0).astype(np.int32)
    pictures, kinds = images(32, (32, 32, 3), classes=3)
    with h5py.File(folder / "images.h5", "w") as file:
        file["train/x"], file["train/y"] = pictures, kinds.astype(np.int32)
    (folder / "tests").symlink_to(ROOT / "tests")
    for page in PAGES:
        shown = pages.programs(page) | pages.programs(page, "toml")
        for name, text in shown.items():
            (folder / name).write_text(text)


@pytest.mark.slow(but_every=20)
@pytest.mark.parametrize("page", _CARRIED_OUT, ids=pages.name_of)
def test_commands_do_what_the_page_shows(tmp_path, page):
    """All of them in their order, in one folder; those whose output is shown print it."""
    shown = [*pages.in_prose(page), *pages.console(page)]
    chosen = {tuple(words): each for each in shown if (words := _words(each))}
    if page == ROOT / "lepton_mpi/prepare/README.md":
        # Its pairs are carried out by test_prepare.py; here what begins anew.
        chosen = {
            words: each for words, each in chosen.items() if each.output or "inspect" in words
        }
        chosen = {_prepare_customers(): Shown(""), **chosen}
    _inputs(tmp_path)
    for words in chosen:
        if "prepare" in words:  # writes no file that is there
            (tmp_path / next(w for w in words if w.endswith(".h5"))).unlink(missing_ok=True)
    (tmp_path / "commands.json").write_text(json.dumps(list(chosen)))
    ranks = 2 if page in _ON_TWO_RANKS else 0
    job = jobs.run(ranks, command_driver.__file__, "commands.json", cwd=tmp_path)
    assert job.code == 0, job.text
    outputs, codes = _by_command(job.out)
    assert len(outputs) == len(chosen), job.text
    for each, output, code in zip(chosen.values(), outputs, codes, strict=True):
        assert code == 0, f"{each.text}\n{output}\n{job.err}"
        if each.output:
            _compare(each.output, output)


def _prepare_customers() -> tuple[str, ...]:
    words = "-m lepton_mpi prepare customers.csv customers.h5 --label left --missing median"
    return (*words.split(), "--drop-duplicates")


def _by_command(out: str) -> tuple[list[str], list[int]]:
    """Output and exit code of each command of the driver."""
    parts = re.split(rf"^{re.escape(command_driver.MARK)} (\d+)\n", out, flags=re.MULTILINE)
    # Before the first mark there is nothing, behind the last neither.
    return parts[2:-1:2], [int(code) for code in parts[3::2]]


@pytest.mark.slow
def test_the_first_command_prints_what_the_first_page_shows(tmp_path):
    """On 8 ranks."""
    first = pages.console(ROOT / "README.md")[0]
    assert first.words == ["./run_local.sh"]
    job = jobs.run(8, *jobs.TRAIN, cwd=tmp_path)
    assert job.code == 0, job.text
    _compare(first.output, job.out)


def _compare(shown: tuple[str, ...], printed: str) -> None:
    """Whether every line that is shown was printed, in this order, ``...`` standing for any."""
    lines = iter(printed.splitlines())
    for line in shown:
        # Depends on the number of cores.
        if line != "..." and not line.startswith("waiting "):
            pattern = _pattern(line)
            assert any(pattern.fullmatch(each.rstrip()) for each in lines), (
                f"not printed: {line}\nin\n{printed}"
            )


# Times, speeds and the machine.
_VARIES = (
    r"\d+ cores for 8 ranks",
    r"Open MPI [\d.]+",
    r"[\d.]+ [KMG]iB of memory free",
    r"[\d.]+ s\b",
    r"[\d ]*\d samples/s",
    r"\d+%",
    r"(?<=alone: )\d+ MiB|(?<=gradients )[\d.]+ MiB",
    r"\(8 N\)|11 N|(?<== )0.4 MiB",
)


def _pattern(line: str) -> re.Pattern[str]:
    """The line, with anything in place of what varies."""
    fixed = re.split("|".join(_VARIES), line.rstrip())
    return re.compile(".*?".join(map(re.escape, fixed)))
