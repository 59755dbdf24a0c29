"""What the READMEs say is so: commands are understood, options and links exist, tables are those of the results.

``tests/faults/test_readme_commands.py`` carries the commands out.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.harness import Row
from benchmarks.loader_table import loader_markdown
from benchmarks.readme_table import markdown, time_text
from benchmarks.summary import summary_markdown
from benchmarks.training_table import training_markdown
from lepton_mpi.__main__ import COMMANDS, find
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import own, parser
from lepton_mpi.options.option import Option
from tests import pages
from tests.pages import PAGES, ROOT, Shown, name_of

FIRST = ROOT / "README.md"
_RESULTS = ROOT / "benchmarks/results"
_BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)

# Options of programs that are not ours.
_OF_OTHERS = {
    *(
        "--oversubscribe",
        "--quick",
        "--lost-host",
        "--allow-run-as-root",
        "--bind-to",
        "--map-by",
        "--host",
        "--output",
        "--with-ft",
        "--rtos",
    ),  # mpirun
    *("--no-binary", "--mpi", "--pdb"),  # pip, srun, pytest
    *("--mem", "--qos", "--signal"),  # sbatch
}
_LAUNCHERS = {
    "mpirun": {
        "-n": 1,
        "--host": 1,
        "--bind-to": 1,
        "--oversubscribe": 0,
        "--with-ft": 1,
        "--rtos": 1,
        "--mca": 2,
        "--prtemca": 2,
        "--allow-run-as-root": 0,
    },
    "srun": {"--mpi=pmix": 0, "--mpi=list": 0},
}


# -- commands and options --------------------------------------------------------------------------


def _shown(page: Path) -> list[Shown]:
    return [*pages.console(page), *pages.scripts(page), *pages.in_prose(page)]


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with the configuration files that the pages show."""
    for page in PAGES:
        for name, text in pages.programs(page, "toml").items():
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


@_BY_PAGE
@pytest.mark.usefixtures("there")
def test_commands_are_understood(page):
    """By the real parsers, so that an unknown option, value, module, variable or file fails."""
    for shown in _shown(page):
        try:
            _understand(shown.words)
        except Exception as error:
            error.add_note(f"{name_of(page)}: {shown.text}")
            raise


def _understand(words: list[str]) -> None:
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        _check_variable(words.pop(0).partition("=")[0])
    program, *rest = [word for word in words if word != "…"]
    if program in _LAUNCHERS:
        rest = _behind_launcher(program, rest)
        if rest and rest != ["COMMAND"]:
            _understand(rest)
    elif program == "python":
        _understand_python(rest)
    elif program == "lepton_mpi":
        find(rest[0]).read(rest[1:])
    elif program == "./run_local.sh":
        _understand_run_local(rest)
    elif program == "pip":
        _understand_pip(rest)
    else:
        assert program == "sbatch" and rest == ["job.sh"]


def _behind_launcher(program: str, words: list[str]) -> list[str]:
    while words and words[0].startswith("-"):
        flag, *words = words
        words = words[_LAUNCHERS[program][flag] :]
    return words


def _understand_python(words: list[str]) -> None:
    if words[0] != "-m":
        assert words == [words[0]] and words[0] in _all_programs(), words
        return
    module, *rest = words[1:]
    if module == "lepton_mpi.train":
        module, rest = "lepton_mpi", ["train", *rest]
    if module == "lepton_mpi":
        if rest not in (["--version"], ["--help"], ["COMMAND"]):
            command = find(rest[0])
            if rest[1:2] != ["--help"]:
                command.read(rest[1:])
    elif module.startswith("benchmarks."):
        _understand_benchmark(module.partition(".")[2], rest)
    else:
        assert module in (
            "pytest",
            "venv",
            "tests.serial.hostile_outcomes",
            "tests.torch.torchs_own_suite",
            "tests.faults.table_of_ends",
        ), module


def _understand_benchmark(name: str, words: list[str]) -> None:
    path = ROOT / "benchmarks" / f"{name.replace('.', '/')}.py"
    assert "__main__" in path.read_text("utf-8"), path
    own = words[: words.index("--")] if "--" in words else words
    options = {word for word in own if word.startswith("--")}
    assert options <= _benchmark_options(), options - _benchmark_options()
    if "--" in words and words[-1] != "COMMAND":
        _understand(words[words.index("--") + 1 :])


def _understand_run_local(words: list[str]) -> None:
    verb, *rest = words or ["train"]
    text = (ROOT / "run_local.sh").read_text("utf-8")
    assert re.search(rf"^        [\w |-]*\b{verb}\b[\w |-]*\) ", text, re.MULTILINE), verb
    if verb == "train":
        find("train").read(rest)
    elif verb == "bench" and rest:
        _understand_benchmark(rest[0], rest[1:])
    elif verb == "mpi":
        assert rest[0] == "N" or int(rest[0])
        if rest[1:] not in (["COMMAND"], []):
            _understand(rest[1:])


def _understand_pip(words: list[str]) -> None:
    assert words[0] == "install"
    extra = re.fullmatch(r"(?:lepton_mpi|\.)\[(\w+)\]", words[-1])
    if extra:
        text = (ROOT / "setup.cfg").read_text("utf-8")
        assert re.search(rf"^{extra[1]} =$", text, re.MULTILINE), extra[1]


def _check_variable(name: str) -> None:
    sources = [ROOT / "run_local.sh", ROOT / "tests/faults/jobs.py"]
    sources += (ROOT / "lepton_mpi").rglob("*.py")
    known_elsewhere = {"MPI4PY_LIBMPI"}
    assert name in known_elsewhere or any(name in path.read_text("utf-8") for path in sources), name


def _all_programs() -> set[str]:
    return {name for page in PAGES for name in pages.programs(page)}


def _benchmark_options() -> set[str]:
    found = set()
    for path in (ROOT / "benchmarks").rglob("*.py"):
        found |= set(re.findall(r'"(--[a-z][a-z-]*)"', path.read_text("utf-8")))
    return found


@_BY_PAGE
def test_programs_are_python(page):
    """Also parts of programs; those in full are run by ``test_readme_commands.py``."""
    for block in pages.blocks(page, "python"):
        compile(block, name_of(page), "exec")


@_BY_PAGE
def test_options_exist(page):
    """Every ``--option`` that a page names."""
    known = {option.flag for name in COMMANDS for option in find(name).options.values()}
    known |= {option.flag for option in own.all_own_options()}
    known |= {"--help", "--version"} | _OF_OTHERS | _benchmark_options()
    text = page.read_text("utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z0-9]+)*(?![\w>-])", text))
    assert named <= known, named - known


@_BY_PAGE
def test_options_take_the_values_that_are_shown(page):
    """Such as ``--schedule cosine`` in the prose: some command takes these words."""
    for span in pages.spans(page):
        words = span.split()
        if len(words) < 2 or not re.fullmatch(r"--[a-z-]+", words[0]):
            continue
        commands = [find(name).options.values() for name in COMMANDS]
        takers = [each for each in commands if words[0] in {option.flag for option in each}]
        assert not takers or any(_take(each, words) for each in takers), span


def _take(options: Iterable[Option], words: list[str]) -> bool:
    try:
        parser.read(words, {option.name: option for option in options if not option.is_position})
    except ConfigurationError:
        return False
    return True


# -- links, pictures, length -----------------------------------------------------------------------


@_BY_PAGE
def test_links_lead_somewhere(page):
    """Files, pictures and the headings behind ``#``."""
    for target in re.findall(r"\]\(([^)\s]+)\)", pages.prose(page)):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), target


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", pages.prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


def test_paths_in_the_prose_exist():
    """Files that are named beside a page, or from the root."""
    for page in PAGES:
        for span in pages.spans(page):
            if re.fullmatch(r"[\w./-]+/[\w.-]+\.(?:py|md|toml|json|txt)", span):
                places = (page.parent, ROOT, ROOT / "lepton_mpi")
                assert any((place / span).exists() for place in places), f"{name_of(page)}: {span}"


def test_every_page_is_found_from_the_first():
    """In one click."""
    text = FIRST.read_text("utf-8")
    for page in PAGES[1:]:
        assert f"({name_of(page)}" in text, page


def test_no_page_is_forgotten():
    """All that the repository holds are looked at here."""
    found = {
        path
        for path in ROOT.rglob("README.md")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    }
    assert found == set(PAGES)


def test_the_first_page_has_at_most_150_lines():
    """It is read once, by a stranger."""
    assert len(FIRST.read_text("utf-8").splitlines()) <= 150


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "results", "page"),
    [
        (markdown, "allreduce.json", _RESULTS / "README.md"),
        (training_markdown, "training.json", _RESULTS / "README.md"),
        (loader_markdown, "loader.json", ROOT / "lepton_mpi/data/README.md"),
    ],
    ids=["allreduce", "training", "loader"],
)
def test_tables_are_those_of_the_results(make, results, page):
    """Line for line, as ``--table`` prints them; and no engine was wrong."""
    rows = json.loads((_RESULTS / results).read_text("utf-8"))
    assert "\n".join(make(rows)) in page.read_text("utf-8")
    assert all(row["wrong"] == 0 for row in rows)


def test_the_first_page_s_table_is_that_of_the_results():
    """Line for line, as ``python -m benchmarks.summary`` prints it."""
    assert "\n".join(summary_markdown()) in FIRST.read_text("utf-8")


def test_losses_of_the_training_table_agree_with_torch_s():
    """As the page says."""
    for row in json.loads((_RESULTS / "training.json").read_text("utf-8")):
        if row["engine"].startswith("lepton"):
            assert row["loss_off"] < (1e-4 if row["model"] == "mlp-10m" else 1e-5), row


@pytest.mark.parametrize(
    ("us", "text"), [(0.6, "0.6 us"), (999.6, "1 ms"), (123456.0, "123 ms"), (1.7e6, "1.7 s")]
)
def test_times_have_three_digits(us, text):
    """And the unit that fits."""
    assert time_text(us) == text


def test_the_fastest_peer_is_shown_tuned_or_not():
    """With its name, the faster form of a mode, and a dash for what was not measured."""
    common: Row = {"ranks": 2, "bytes": 4096, "mode": "array", "tuned": False, "algorithm": "x"}
    rows = [
        {**common, "library": "lepton_mpi", "mode": "shared", "time_us": 1.5},
        {**common, "library": "lepton_mpi", "mode": "shared", "time_us": 1.0},
        {**common, "library": "mpich", "time_us": 3.0},
        {**common, "library": "intel", "time_us": 2.0, "tuned": True},
    ]
    assert markdown(rows)[-1] == "| 4 KiB | 1 us, -, - | 2 us, Intel MPI tuned |"
