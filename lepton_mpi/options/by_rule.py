"""Options that follow from the data where nobody has chosen them: None until ``run/defaults.py`` has settled them.

``auto`` is how that is typed, so that a command line may take back what a file says. Imports no NumPy.
"""

from collections.abc import Mapping
from typing import Any

from lepton_mpi.options.kinds import Kind, OrAuto, Several, SeveralOrAuto
from lepton_mpi.options.option import Check, option

# What earlier versions took, whatever the data: of models that the rule leaves alone, and of files that do not say.
EARLIER: Mapping[str, Any] = {
    "hidden": (128,),
    "epochs": 30,
    "global_batch": 64,
    "learning_rate": 1e-3,
}


def by_rule(help_text: str, check: Check, kind: Kind, of: tuple[str, ...] = ()) -> Any:
    """A field of such an option; ``kind`` is that of a value."""
    if isinstance(kind, Several):
        kind = SeveralOrAuto.of(kind.item, kind.separator)
    else:
        kind = OrAuto.of(kind)
    text = f"{help_text}; auto: by rule from the data, as the line `derived` of a run says"
    return option(None, text, check, kind=kind, of=of)


class Settled:
    """Values of a run, which ``run/defaults.py`` has settled."""

    epochs: int | None
    global_batch: int | None
    learning_rate: float | None

    @property
    def epoch_count(self) -> int:
        """``epochs``."""
        assert self.epochs is not None
        return self.epochs

    @property
    def batch_rows(self) -> int:
        """``global_batch``."""
        assert self.global_batch is not None
        return self.global_batch

    @property
    def peak_rate(self) -> float:
        """``learning_rate``."""
        assert self.learning_rate is not None
        return self.learning_rate
