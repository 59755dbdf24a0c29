"""``python -m lepton_mpi generate CHECKPOINT``: a text by a model that has learned from one, the same on any number of ranks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.kinds import PathText, Text
from lepton_mpi.options.option import (
    AT_LEAST_0,
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Checked,
    option,
)
from lepton_mpi.wording import print_line

if TYPE_CHECKING:
    from lepton_mpi.world.world import World


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is continued, and how."""

    checkpoint: str = of_checkpoint.checkpoint_position()
    prompt: str = option("\n", "what the text begins with", kind=Text("TEXT"))
    tokens: int = option(400, "how many are written", WHOLE_FROM_1)
    temperature: float = option(
        0.8, "below 1 likely tokens become likelier; 0: always the likeliest", AT_LEAST_0
    )
    top_k: int = option(0, "only so many of the likeliest tokens are drawn; 0: all", WHOLE_FROM_0)
    seed: int = option(0, "of the draws", WHOLE_FROM_0)
    data: str | None = option(
        None,
        "file that says what tokens stand for; none: the checkpoint, or of one of an earlier version its data",
        kind=PathText("FILE"),
    )
    timeout: float = of_checkpoint.timeout_option()


def _run(chosen: Options) -> int:
    return of_checkpoint.on_ranks(lambda ranks: write_text(chosen, ranks), chosen.timeout)


def write_text(chosen: Options, world: World) -> None:
    """Print the prompt and what follows it, on rank 0. Collective."""
    from lepton_mpi.models.gpt import Gpt
    from lepton_mpi.run import generation, trained

    found = trained.load_trained(Path(chosen.checkpoint), chosen.data, world, needs_rows=False)
    model, vocabulary = found.model, found.data.vocabulary
    with world.agreeing():
        if not isinstance(model, Gpt) or not vocabulary:
            raise ConfigurationError(
                f"{chosen.checkpoint}: expected a model of texts and data that say what tokens stand for, got "
                f"{model}, {found.data.outputs_text}"
            )
        prompt = generation.tokens_of(chosen.prompt, found.data.encodings, chosen.checkpoint)
        if world.rank == 0:
            writer = generation.Writer(model, found.parameters)
            how = chosen.tokens, chosen.temperature, chosen.top_k, chosen.seed
            tokens = [*prompt, *generation.generate(writer, prompt, *how)]
            for line in generation.text_of(tokens, vocabulary).split("\n"):
                print_line(line)
            sys.stdout.flush()


COMMAND = command(
    "generate",
    "continue a text with a model that has learned from one",
    "CHECKPOINT [options]",
    Options,
    _run,
)
