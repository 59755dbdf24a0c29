"""Which kernels a data set calls, so that they are compiled before the first step."""

from collections.abc import Iterable

from lepton_mpi.batch import Input
from lepton_mpi.data import augmentation_kernels, shuffle_kernels
from lepton_mpi.data import kernels as row_kernels
from lepton_mpi.data.files.checksum_kernels import fletcher32
from lepton_mpi.kernels.compiling import Kernel

_SHUFFLING = (
    shuffle_kernels.sort_buckets,
    shuffle_kernels.count_numbers,
    shuffle_kernels.place_numbers,
)


def while_loading() -> list[Kernel]:
    """What checks rows while any data set is loaded, and chooses at random which are held out."""
    return [*_SHUFFLING, fletcher32, row_kernels.all_finite]


def while_training(y_kind: str, inputs: Iterable[Input], augments: bool) -> list[Kernel]:
    """What gathers rows with these inputs beside that; ``augments`` if they are changed at random."""
    kinds = {spec.kind for spec in inputs}
    of_y = {
        "classes": row_kernels.gather_labels,
        "targets": row_kernels.gather_targets,
        "tokens": row_kernels.gather_windows,
    }
    return [
        of_y[y_kind],
        *([row_kernels.gather_rows] if "numbers" in kinds else []),
        *([augmentation_kernels.gather_augmented] if augments else []),
        *([row_kernels.gather_codes] if kinds - {"numbers"} and y_kind != "tokens" else []),
    ]
