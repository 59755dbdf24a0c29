"""Synchronised batch normalisation: ``batch_norm.py`` with the statistics of all micro-batches of a step, whichever ranks compute them.

    1  The micro-batches of a step run side by side, each in memory of its own, up to a layer of this kind (``joint_step.py``).
    2  Of each the layer tells count n_i, means m_i and squares q_i = sum of (x - m_i)^2, float64, in its row of a table.
    3  Ranks add up their tables, which are 0 where others compute: exact, so no bit depends on who computed what.
    4  Every rank merges the rows in the order of micro-batches: n = sum n_i, m = sum n_i m_i / n, q = sum q_i + sum n_i (m_i - m)^2.
    5  Each micro-batch goes on with mean m and variance q / n. An empty one, or a rank with none, has rows of 0 in the same tables.
    6  Backward likewise: of each sums of grad_out and of grad_out * (x - m), and grad_x by the means of all n places.
    7  Gradients of weight and bias are those of a micro-batch alone, which a step adds up as others; so are running statistics.
    8  Recomputation comes here a second time, with the same numbers. Evaluation goes by running statistics, and asks nobody.

Sources: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979; torch.nn.SyncBatchNorm.
"""

from collections.abc import Collection, Mapping

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import channel_norm_kernels as kernels
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Synchronised, When


class SyncBatchNorm(BatchNorm, Synchronised):
    """See the module; parameters as of ``BatchNorm``."""

    kernels = kernels.batch_moments, kernels.normalise, kernels.gradient_sums, kernels.gradient_by

    def before_relu(self) -> Layer | None:
        if not self.relu:
            return None
        return SyncBatchNorm(False, self._momentum, self.epsilon, self._initial)

    def freeze(self, names: Collection[str]) -> None:
        if {"running_mean", "running_variance"} & set(names):
            raise ConfigurationError(
                "--freeze: expected running statistics that are trained with --norm sync_batch, got "
                f"{', '.join(sorted(names))}; --norm batch normalises by frozen ones"
            )

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        whole = Memory((self.part_size(x),), "kept", np.float64)
        return {**super().memory(rows, x), "whole": whole}

    def part_size(self, x: Input) -> int:
        return 1 + 2 * x.shape[-1]

    def tell_forward(self, p: Mapping[str, Array], at: Arrays, when: When, part: Array) -> None:
        x, moments = at.x.reshape(-1), part[1:].reshape(2, -1)
        part[0] = x.size // moments.shape[1]
        kernels.batch_moments(x, at.memory["wide"], at.memory["totals"], moments)

    def merge_forward(self, parts: Array, whole: Array) -> None:
        counts, channels = parts[:, :1], parts.shape[1] // 2
        means, squares = parts[:, 1 : 1 + channels], parts[:, 1 + channels :]
        count = counts.sum()
        mean = (counts * means).sum(axis=0) / max(count, 1)
        between = (counts * (means - mean) ** 2).sum(axis=0)
        whole[0], whole[1 : 1 + channels] = count, mean
        whole[1 + channels :] = squares.sum(axis=0) + between

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        if not when.training:
            super().forward(p, at, when)
            return
        whole, statistics = at.memory["whole"], at.memory["statistics"]
        statistics[...] = whole[1:].reshape(statistics.shape)
        statistics[1] /= max(whole[0], 1)
        given = statistics, p["weight"], p["bias"], self.epsilon, self.relu
        kernels.normalise(at.x.reshape(-1), *given, at.memory["wide"], at.out.reshape(-1))

    def tell_backward(self, p: Mapping[str, Array], at: Arrays, when: When, part: Array) -> None:
        x, memory, totals = at.x.reshape(-1), at.memory, at.memory["totals"]
        given = memory["statistics"], p["weight"], p["bias"], self.epsilon, self.relu
        kernels.gradient_sums(x, *given, memory["wide"], at.grad_out.reshape(-1), totals)
        part[0], part[1:] = x.size // totals.shape[1], totals.reshape(-1)

    def merge_backward(self, parts: Array, whole: Array) -> None:
        whole[...] = parts.sum(axis=0)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        x, memory, statistics = at.x.reshape(-1), at.memory, at.memory["statistics"]
        whole, totals = memory["whole"], memory["totals"]
        grad["bias"][...] = totals[0]
        grad["weight"][...] = totals[1] / np.sqrt(statistics[1] + self.epsilon)
        if at.grad_x is not None:
            means = whole[1:].reshape(totals.shape) / max(whole[0], 1)
            given = statistics, p["weight"], p["bias"], self.epsilon, self.relu, means
            slopes = at.grad_out.reshape(-1), at.grad_x.reshape(-1)
            kernels.gradient_by(x, *given, memory["wide"], *slopes)
        rows, places = len(at.x), whole[0]
        np.multiply(statistics[0], rows, out=grad["running_mean"])
        np.multiply(statistics[1], rows * places / max(1, places - 1), out=grad["running_variance"])
