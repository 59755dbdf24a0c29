"""Whether data have the codes that a model was trained on: columns, categories, classes, targets and tokens, by name."""

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.encodings import Encodings, refusal
from lepton_mpi.errors import DataError


def check_codes(expected: Encodings, data: DataSet, origin: str, is_file: bool = True) -> list[str]:
    """What could not be compared, or was made in another way, for people; ``origin`` is the checkpoint, a file if ``is_file``.

    Raises DataError where names differ. Every rank calls it and gets the same.
    """
    if wrong := refusal(expected, data.encodings, origin, is_file):
        raise DataError(f"{data.paths[0]}: {wrong}")
    return notes_on_codes(expected, data, origin)


def notes_on_codes(expected: Encodings, data: DataSet, origin: str) -> list[str]:
    """The same of names that are missing on one side, and of cells that were filled or clipped in another way."""
    came, notes = data.encodings, []
    if missing := expected.not_named(came):
        notes.append(
            f"{data.name} does not name its {_and(missing)}, as {origin} does: compared by shape alone"
        )
    elif unknown := came.not_named(expected):
        notes.append(f"{origin} has no names of {_and(unknown)}: compared by shape alone")
    if found := expected.fitted_otherwise(came):
        notes.append(
            f"{data.name} has {_and(found)} than the data of {origin}: prepare --like {origin} takes the same"
        )
    return notes


def notes_on_initial(expected: Encodings, data: DataSet, origin: str) -> list[str]:
    """For a run that takes parameters alone: other data are no mistake there, but are to be known."""
    if found := expected.differences(data.encodings):
        return [
            f"begins with the parameters of {origin}, of other codes than {data.name}: {'; '.join(found[:3])}"
        ]
    return notes_on_codes(expected, data, origin)


def _and(words: list[str]) -> str:
    return " and ".join(words)
