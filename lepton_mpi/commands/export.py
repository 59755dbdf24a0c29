"""``python -m lepton_mpi export CHECKPOINT FILE``: a trained model for other programs, in the format that FILE's name ends in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.names import EXPORTS
from lepton_mpi.options.option import Checked, option, position
from lepton_mpi.wording import print_line

if TYPE_CHECKING:
    from lepton_mpi.world.world import World

_WORD = "FILE"
_PROGRAM_FOR, _PREPROCESS_FOR = ".safetensors", ".onnx"


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is written, and where."""

    checkpoint: str = of_checkpoint.checkpoint_position()
    file: str = position(
        f"file to write, in the format that its name ends in: {', '.join(EXPORTS)}",
        kind=PathText(_WORD, "a file"),
    )
    preprocess: bool = option(
        False,
        "of .onnx: numbers go in as the data file has them, and targets come out in its units",
    )
    torch: bool = option(
        False,
        "of .safetensors: also print a torch program that loads the file and gives the same outputs",
    )
    force: bool = option(False, "write over a file that exists")
    model: str | None = of_checkpoint.own_model_option()
    timeout: float = of_checkpoint.timeout_option()

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        if not self.file.endswith(EXPORTS):
            known = f"{', '.join(EXPORTS[:-1])} or {EXPORTS[-1]}"
            raise ConfigurationError(
                f"{_WORD}: expected a name that ends in {known}, got {self.file}"
            )
        for flag, is_set, suffix in (
            ("--torch", self.torch, _PROGRAM_FOR),
            ("--preprocess", self.preprocess, _PREPROCESS_FOR),
        ):
            if is_set and not self.file.endswith(suffix):
                raise ConfigurationError(
                    f"{flag}: expected a {_WORD} that ends in {suffix}, got {self.file}"
                )


def _run(chosen: Options) -> int:
    return of_checkpoint.on_ranks(lambda ranks: export_checkpoint(chosen, ranks), chosen.timeout)


def export_checkpoint(chosen: Options, world: World) -> None:
    """Write the file and say what is in it; with --torch, print the program behind these lines as comments. Collective."""
    from lepton_mpi.exporting import export, torch_program
    from lepton_mpi.run import trained

    out = Path(chosen.file)
    with world.agreeing():
        if world.rank == 0:
            of_checkpoint.check_out(_WORD, out, chosen.force)
    path, notes = trained.find_silently(Path(chosen.checkpoint), world)
    found = trained.load_found(path, None, world, chosen.model, needs_rows=False)
    with world.agreeing():
        subject = export.subject_of(found, chosen.model)
        if world.rank != 0:
            return
        if out.exists() and out.samefile(found.path):
            raise ConfigurationError(f"{_WORD}: expected another file than {found.path} itself")
        # Before the file is written: what cannot be done leaves nothing behind.
        program = torch_program.program(subject, out.name) if chosen.torch else ""
        lines = [*notes, *export.write(subject, out, chosen.preprocess)]
        for line in lines:
            print_line(f"# {line}" if program else line)
        if program:
            print_line(program.rstrip("\n"))


COMMAND = command(
    "export",
    "write a trained model for other programs: ONNX, safetensors (torch), Keras weights or NumPy",
    "CHECKPOINT FILE [options]",
    Options,
    _run,
    "FILE.onnx holds the whole model, which onnxruntime runs; the others hold its parameters. --initial of train reads "
    "FILE.safetensors and FILE.weights.h5 back.",
)
