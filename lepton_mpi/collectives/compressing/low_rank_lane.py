"""The lane of ``powersgd``: two sums over the hosts, of P and of Q, with a product before each; see ``powersgd.py``.

    start_sending    P = M Q of every matrix; the sum of all P, and of what is exact, is on its way
    poll             when it is there: P is made orthonormal, Q = M^T P, and M less P Q^T is the residual
                     the sum of all Q is on its way; when it is there: P Q^T is the result, and Q is kept for the next round

Both sums are exact (``vector_lanes.payload_exchange``), so all hosts have the same bits of P and Q, and all products are the package's own, which
round alike on every processor. Bytes of a round: those of two exchanges of vectors, of r m + what is exact and of r n elements.
"""

from collections.abc import Sequence

import numpy as np

from lepton_mpi.collectives.compressing import powersgd_kernels as kernels
from lepton_mpi.collectives.compressing.exchange import SUM, Slice
from lepton_mpi.collectives.compressing.vector_lanes import payload_exchange
from lepton_mpi.collectives.messages.plan import Transport
from lepton_mpi.kernels.product_kernels import (
    product,
    product_left,
    product_right,
    right_scratch_size,
)


class LowRankLane:
    """See the module. Making one is collective over the lane.

    Parameters
    ----------
    rank : int
    of : Slice
        Of whole parameters; ``owner_residual`` is not used.
    matrices : list of (start, m, n)
        Where they begin in the slice; the rest is exact.
    warm : array, shape of the slice
        Memory for Q from one round to the next, of each matrix at its beginning: n r elements, all 0 if there was none.
    transports : sequence of 4 Transport
    """

    def __init__(
        self,
        rank: int,
        of: Slice,
        matrices: Sequence[tuple[int, int, int]],
        warm: np.ndarray,
        transports: Sequence[Transport],
    ) -> None:
        self._of, dtype = of, of.result.dtype
        exact = of.exact_values.size
        p = np.zeros(exact + rank * sum(m for _, m, _ in matrices), dtype)
        q = np.zeros(rank * sum(n for _, _, n in matrices), dtype)
        # One exchange sums both.
        of.exact_values = p[:exact]
        self._matrices, p_at, q_at = [], exact, 0
        for start, m, n in matrices:
            parts = p[p_at : p_at + m * rank], q[q_at : q_at + n * rank]
            self._matrices.append(Matrix(of, start, (m, n), rank, parts, warm))
            p_at, q_at = p_at + m * rank, q_at + n * rank
        self._sum_p = payload_exchange(p, *transports[:2])
        self._sum_q = payload_exchange(q, *transports[2:])
        self._has_p = self._has_q = True

    @property
    def has_left(self) -> bool:
        """Whether all hosts have P: their sums are sent as soon as they are there."""
        return self._has_p and self._sum_q.has_left

    @property
    def is_summed(self) -> bool:
        """As of ``LaneExchange``."""
        return self._has_p and self._sum_q.is_summed

    @property
    def has_sent(self) -> bool:
        """As of ``LaneExchange``."""
        return self._has_p and self._sum_q.has_sent

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self._has_p = self._has_q = False
        for matrix in self._matrices:
            matrix.begin()
        self._sum_p.start_receiving()
        self._sum_q.start_receiving()

    def start_sending(self) -> None:
        """As of ``LaneExchange``."""
        x = self._of.take()
        for matrix in self._matrices:
            matrix.multiply_right(x)
        self._sum_p.start_sending()

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        if not self._has_p:
            if not self._sum_p.poll():
                return False
            for matrix in self._matrices:
                matrix.multiply_left()
            self._sum_q.start_sending()
            self._has_p = True
        if not self._has_q and self._sum_q.poll(sends_sums):
            for matrix in self._matrices:
                matrix.decode()
            self._of.put_exact()
            self._has_q = True
        return self._has_q and sends_sums


class Matrix:
    """One of them: M, (m, n), is what this host has to add, with its residual."""

    def __init__(
        self,
        of: Slice,
        start: int,
        shape: tuple[int, int],
        rank: int,
        parts: tuple[np.ndarray, np.ndarray],
        warm: np.ndarray,
    ) -> None:
        (m, n), dtype = shape, of.result.dtype
        self._span, self._of, self._start = slice(start, start + m * n), of, start
        self._m = of.residual[self._span].reshape(m, n)
        self._result = of.result[self._span].reshape(m, n)
        self._p, self._q = parts[0].reshape(m, rank), parts[1].reshape(n, rank)
        self._warm = warm[start : start + n * rank].reshape(n, rank)
        self._rows = np.arange(max(m, n), dtype=np.int64)
        self._columns = np.zeros((rank, m))
        self._scratch = np.zeros(right_scratch_size(m, rank, n), dtype)
        self._key = np.uint64(0)

    def begin(self) -> None:
        """The key of this step."""
        self._key = self._of.key(SUM, self._of.start + self._start)

    def multiply_right(self, x: np.ndarray) -> None:
        """Add this host's part of the sum to M; P = M Q."""
        m = len(self._m)
        self._m += x[self._span].reshape(self._m.shape)
        # All hosts have the same Q, and draw the same.
        kernels.draw_columns(self._key, True, self._warm)
        product(self._m, self._rows[:m], self._warm, self._p)

    def multiply_left(self) -> None:
        """P is that of all hosts: make it orthonormal; Q = M^T P, and M -= P Q^T."""
        m, n = self._m.shape
        kernels.orthonormalise(self._p, self._columns)
        product_left(self._m, self._rows[:m], self._p, self._q, 0, n)
        product_right(self._p, self._rows, self._q, self._scratch, self._result)
        kernels.subtract(self._result.reshape(-1), self._m.reshape(-1))

    def decode(self) -> None:
        """Q is that of all hosts: P Q^T is the sum."""
        product_right(self._p, self._rows, self._q, self._scratch, self._result)
        self._warm[:] = self._q
