"""What the READMEs show: commands, their output, programs, options, links."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "lepton_mpi" / folder / "README.md"
        for folder in (
            *("prepare", "data", "run", "models", "strategies", "collectives", "world"),
            *("kernels", "interpretation", "torch", "jax"),
        )
    ),
    ROOT / "benchmarks/README.md",
    ROOT / "benchmarks/results/README.md",
    ROOT / "tests/README.md",
)

_PROGRAMS = ("mpirun", "python", "lepton_mpi", "pip", "srun", "sbatch", "./run_local.sh")


class Shown(NamedTuple):
    """A command as it is shown, and the lines shown below it."""

    text: str
    output: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """As a shell reads it."""
        return shlex.split(self.text, comments=True)


def name_of(page: Path) -> str:
    """The path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    text = page.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```\n", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """Code within the prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def console(page: Path) -> list[Shown]:
    """Commands of the console blocks, with their output."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.rstrip().splitlines()
            found.append(Shown(command, tuple(output)))
    return found


def scripts(page: Path) -> list[Shown]:
    """Commands of the bash blocks, continued lines joined."""
    joined = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.startswith(_PROGRAMS)]
    return [Shown(line) for line in lines]


def in_prose(page: Path) -> list[Shown]:
    """Commands within the prose, such as those of the first page's table."""
    is_command = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{'|'.join(map(re.escape, _PROGRAMS))})(?: |$)")
    return [Shown(span) for span in spans(page) if is_command.match(span) and " " in span]


def programs(page: Path, language: str = "python") -> dict[str, str]:
    """Files that are shown in full, by the name in their first line; blocks without a name are parts of one."""
    found = {}
    for block in blocks(page, language):
        name = re.match(r"# (\w+\.\w+)\n", block)
        if name:
            found[name[1]] = block
    return found
