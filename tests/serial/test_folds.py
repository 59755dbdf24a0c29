"""Sums as lists of folds: the order of the tree, every row once, slots filled before they are read."""

import numpy as np
import pytest

from lepton_mpi.collectives.combining_kernels import MAX, MIN, SUM
from lepton_mpi.collectives.summation_tree import additions, whole_nodes
from lepton_mpi.collectives.within_host import fold_kernels
from lepton_mpi.collectives.within_host.folds import plan_folds
from lepton_mpi.kernels.compiling import kernel
from tests import extremes


@kernel(
    "void(M, i8[::1], i8, i8, b1, i8, i8)",
    *(f"void({kind}[:,::1], i8[::1], i8, i8, b1, i8, i8)" for kind in ("i4", "i8")),
)
def fold(table, addresses, arity, operation, streaming, targets, byte_count):
    """The kernel, callable from Python."""
    fold_kernels.fold(table, addresses, arity, operation, streaming, targets, byte_count)


def canonical(leaves: list[int]) -> str:
    """The tree over ``leaves`` as text."""
    text = {leaf: str(leaf) for leaf in leaves}
    for left, right in additions(leaves):
        text[left] = f"({text[left]} {text.pop(right)})"
    return text[leaves[0]]


def carried_out(folds, rows: list[int], leaves: list[int]) -> dict[int, str]:
    """What every target holds afterwards, as text."""
    text = {row: str(leaf) for row, leaf in zip(rows, leaves, strict=True)}
    for each in folds:
        values = [text[operand] for operand in each.operands]
        while len(values) > 1:
            values = [f"({a} {b})" for a, b in zip(values[::2], values[1::2], strict=True)]
        text |= dict.fromkeys(each.targets, values[0])
    return text


@pytest.mark.parametrize("count", range(1, 40))
def test_folds_have_the_order_of_the_tree(count):
    """For any number of leaves, whatever rows they are in."""
    leaves, rows = list(range(count)), list(range(100, 100 + count))
    folds = plan_folds(rows, leaves, [7, 8], first_slot=1000)
    held = carried_out(folds, rows, leaves)
    assert held[7] == held[8] == canonical(leaves)
    assert all(len(each.operands) in (1, 2, 4, 8) for each in folds)
    assert len(folds) == 1 if count in (1, 2, 4, 8) else len(folds) > 1


@pytest.mark.parametrize(("start", "stop", "count"), [(3, 8, 9), (3, 9, 9), (0, 13, 16), (5, 6, 7)])
def test_folds_of_whole_nodes(start, stop, count):
    """A run of leaves that some ranks have already added up in part."""
    leaves = [first for first, _ in whole_nodes(start, stop, count)]
    rows = list(range(len(leaves)))
    folds = plan_folds(rows, leaves, [50], first_slot=100)
    assert carried_out(folds, rows, leaves)[50] == canonical(leaves)


def test_a_sum_of_one_row_in_place_is_nothing():
    """Its only operand is its target."""
    assert plan_folds([3], [0], [3], first_slot=9) == []


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("arity", [1, 2, 4, 8])
@pytest.mark.parametrize("operation", [SUM, MAX, MIN])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
def test_the_kernel_does_what_a_fold_says(dtype, arity, operation, count):
    """All arities, operations, types, targets, and lengths around a line; nothing is written beyond the end."""
    random = np.random.default_rng(count)
    table = random.integers(-1000, 1000, (11, count + 3)).astype(dtype)
    before = table.copy()
    addresses = np.array([base(table, row) for row in [*range(arity), 8, 9, 10]])
    fold(table, addresses, arity, operation, False, 3, count * table.itemsize)
    ufunc = {SUM: np.add, MAX: np.maximum, MIN: np.minimum}[operation]
    expected = ufunc.reduce(before[:arity, :count], axis=0)
    for row in (8, 9, 10):
        np.testing.assert_array_equal(table[row, :count], expected)
    table[8:, :count] = before[8:, :count]
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("arity", [2, 4, 8])
@pytest.mark.parametrize("operation", ["max", "min"])
def test_zeros_and_nan_are_combined_whatever_their_order(dtype, arity, operation):
    """Bit for bit, in whole lines and behind them."""
    parts = extremes.parts(arity, dtype)
    count = parts[0].size
    table = np.zeros((9, count), dtype)
    table[:arity] = parts
    addresses = np.array([base(table, row) for row in [*range(arity), 8]])
    number = {"max": MAX, "min": MIN}[operation]
    fold(table, addresses, arity, number, False, 1, count * table.itemsize)
    assert table[8].tobytes() == extremes.expected(parts, operation).tobytes()


@pytest.mark.parametrize("arity", [2, 4, 8])
def test_streaming_stores_the_same(arity):
    """Past the caches, to an aligned target."""
    memory = np.zeros(11 * 1024 + 16, np.float32)
    shift = -memory.ctypes.data % 64 // 4
    table = memory[shift : shift + 11 * 1024].reshape(11, 1024)
    table[:8] = np.arange(8 * 1024).reshape(8, 1024) % 1021
    addresses = np.array([base(table, row) for row in [*range(arity), 10]])
    fold(table, addresses, arity, SUM, True, 1, table[0].nbytes)
    np.testing.assert_array_equal(table[10], table[:arity].sum(axis=0))


def base(table: np.ndarray, row: int) -> int:
    """Address of a row."""
    return table.ctypes.data + row * table.strides[0]
