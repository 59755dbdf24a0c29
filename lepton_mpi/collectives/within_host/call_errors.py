"""What is wrong with a call whose entries in the ring of ``call_kernels.py`` differ."""

from collections.abc import Sequence

import numpy as np

from lepton_mpi.collectives.calls import MEETING, REFUSED, Fingerprint, difference_error
from lepton_mpi.collectives.within_host.call_kernels import FINGERPRINT_WORDS
from lepton_mpi.errors import ConfigurationError, LeptonError
from lepton_mpi.kernels.intrinsics import LINE_BYTES


def entry_error(
    entries: np.ndarray, numbers: Sequence[int], other: int, call_number: int
) -> LeptonError:
    """The error of a call, the same on all ranks.

    Parameters
    ----------
    entries : uint8, shape (ranks, bytes of an entry)
        Of the call.
    numbers : sequence of int
        What the ranks are called.
    other : int
        The first whose entry is not that of rank 0.
    call_number : int
        Of the call, for people.
    """
    words = entries[:, :LINE_BYTES].view(np.int64)[:, :FINGERPRINT_WORDS]
    prints = [Fingerprint(verb % MEETING, *rest) for verb, *rest in words.tolist()]
    for rank, found in enumerate(prints):
        if found.verb == REFUSED:
            text = entries[rank, LINE_BYTES : LINE_BYTES + found.byte_count].tobytes()
            return ConfigurationError(text.decode(errors="replace")).on_all_ranks()
    return difference_error(call_number, numbers[0], prints[0], numbers[other], prints[other])
