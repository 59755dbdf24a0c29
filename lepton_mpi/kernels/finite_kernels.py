"""Are all numbers of a vector finite?"""

import numpy as np

from lepton_mpi.kernels.compiling import kernel


@kernel("i8(V)")
def not_finite(vector):
    """1 if any element of ``vector``, shape (n,), is NaN or infinite, else 0.

    What is finite is 0 less itself, and nothing else is. Without a way out of the loop it becomes vector code.
    """
    found = np.int32(0)
    for i in range(vector.size):
        x = vector[i]
        found |= np.int32(x - x != 0)
    return np.int64(found)
