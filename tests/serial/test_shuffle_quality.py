"""How well blocks in windows mix, measured on rows that are sorted by class, beside the full shuffle and what theory gives.

20 000 rows, 10 classes one behind the other, blocks of 50 rows of which each has one class, steps of 8 x 32 rows.
Windows of 2 steps are 1/40 of the rows in all streams together, windows of 20 steps a quarter.
"""

from itertools import chain

import numpy as np
import pytest
from scipy.stats import chi2

from lepton_mpi.data.order import BlockShuffle, FullShuffle, MicroBatches
from tests.serial.test_shuffles import dealt

ROWS, CLASSES, BLOCK = 20_000, 10, 50
CUT = MicroBatches(256, 32)
EPOCHS = range(1, 11)
IN_ORDER = np.split(np.arange(ROWS - ROWS % CUT.batch_rows), ROWS // CUT.batch_rows)
CLASS_OF = np.arange(ROWS) * CLASSES // ROWS
WINDOW_STEPS = [2, 20]


def _blocks(window_steps: int) -> BlockShuffle:
    return BlockShuffle(None, np.arange(0, ROWS + 1, BLOCK), CUT, 1, window_steps * CUT.rows)


def _epochs(shuffle) -> list[list[np.ndarray]]:
    """Of each epoch the rows of each full step."""
    return [[np.concatenate(parts) for parts in dealt(shuffle, epoch, 1)[:-1]] for epoch in EPOCHS]


def _chi_square(epochs) -> float:
    """Of the classes of a batch against equal shares, over its mean in independent draws; averaged over batches."""
    expected = CUT.batch_rows / CLASSES
    counts = [np.bincount(CLASS_OF[rows], minlength=CLASSES) for steps in epochs for rows in steps]
    return np.mean([((c - expected) ** 2 / expected).sum() for c in counts]) / (CLASSES - 1)


def _ratio(companions: float, units: int) -> float:
    """What that is where a row has ``companions``, itself counted, of its own unit in the batch, and units are shuffled.

    The class counts' variance over that of independent draws is 1 for each pair of rows of one unit, and for all other
    pairs -1/(units - 1), since a class that has come up is rarer in the rest: (S - (n^2 - S)/(units - 1)) / n
    with S = n companions.
    """
    return companions - (CUT.batch_rows - companions) / (units - 1)


def _windows(window_steps: int) -> np.ndarray:
    """Rows of every window of an epoch; the first ones of most streams are shorter than the others, and the last ones."""
    windows = _blocks(window_steps).epoch(1).windows(list(range(CUT.count)))
    return np.array([window.row_count for window in windows])


def _companions(window_steps: int) -> float:
    """Rows of the same block in the same batch, on average.

    Of the rows d places apart in the stream w - d pairs lie in a window of w rows, and two rows of a window fall into
    the same micro-batch of m with (m - 1)/(w - 1).
    """
    windows, apart = _windows(window_steps)[:, None], np.arange(1, BLOCK)
    in_block = 2 * (BLOCK - apart) / BLOCK
    same = np.minimum(1, (CUT.rows - 1) / np.maximum(1, windows - 1))
    return 1 + (in_block * np.maximum(0, windows - apart) * same).sum() / windows.sum()


def test_batches_of_the_full_shuffle_have_the_classes_of_independent_draws():
    """Within 5 standard errors of 770 batches, each with the variance of chi-square."""
    error = np.sqrt(2 / (CLASSES - 1) / (len(EPOCHS) * (ROWS // CUT.batch_rows)))
    measured = _chi_square(_epochs(FullShuffle(ROWS, None, CUT, 1)))
    assert abs(measured / _ratio(1, ROWS) - 1) < 5 * error


@pytest.mark.parametrize("window_steps", WINDOW_STEPS)
def test_classes_of_batches_vary_as_theory_says(window_steps):
    """About 18 times as much as in the full shuffle, 3 times with windows of a quarter, 244 times where nothing is shuffled.

    Steps that share a window are not independent, so that only one in ``window_steps`` counts in the standard error.
    """
    error = np.sqrt(2 / (CLASSES - 1) / (len(EPOCHS) * len(IN_ORDER) / window_steps))
    expected = _ratio(_companions(window_steps), ROWS // BLOCK)
    measured = _chi_square(_epochs(_blocks(window_steps)))
    assert abs(measured / expected - 1) < 5 * error
    assert {2: 17, 20: 2}[window_steps] < expected < {2: 20, 20: 4}[window_steps]
    assert _chi_square([IN_ORDER]) > 240


@pytest.mark.parametrize("window_steps", WINDOW_STEPS)
def test_the_place_in_the_epoch_says_nothing_of_the_place_in_the_file(window_steps):
    """Their correlation has the standard deviation 1/sqrt(blocks - 1) in an epoch, of blocks in random order."""
    found = []
    for steps in _epochs(_blocks(window_steps)):
        rows = np.concatenate(steps)
        found.append(np.corrcoef(rows, np.arange(rows.size))[0, 1])
    deviation = 1 / np.sqrt(ROWS // BLOCK - 1)
    assert np.abs(found).max() < 4 * deviation
    assert abs(np.mean(found)) < 4 * deviation / np.sqrt(len(found))


@pytest.mark.parametrize("window_steps", WINDOW_STEPS)
def test_neighbours_in_the_file_come_apart_within_their_window(window_steps):
    """As two of the w rows of a window do that are dealt to w / m steps, m to each.

    They come into the same step with (m - 1)/(w - 1), and are (w / m + 1)/3 steps apart if not.
    """
    apart = []
    for steps in _epochs(_blocks(window_steps)):
        step_of = np.full(ROWS, -1)
        for step, rows in enumerate(steps):
            step_of[rows] = step
        pairs = np.stack([step_of[:-1], step_of[1:]])[:, np.arange(1, ROWS) % BLOCK != 0]
        apart.append(np.abs(pairs[0] - pairs[1])[(pairs >= 0).all(axis=0)])
    apart, windows = np.concatenate(apart), _windows(window_steps)
    weight = (windows - 1) / (windows - 1).sum()
    same = np.minimum(1, (CUT.rows - 1) / (windows - 1))
    mean = (1 - same) * (windows / CUT.rows + 1) / 3
    # One neighbour in w is the first of the next window; that is 1 in 64 at most, and half a window farther.
    assert (apart == 0).mean() == pytest.approx(same @ weight, rel=0.1)
    # The sequence is cut between its streams, and the neighbours there are the last and the first of an epoch.
    cuts = CUT.count * (len(IN_ORDER) - 1) / (ROWS - ROWS // BLOCK)
    assert apart.mean() == pytest.approx(mean @ weight + cuts, rel=0.1)


@pytest.mark.parametrize(("block_count", "window_steps"), [(1, 1), (1, 4), (3, 1), (8, 1)])
def test_every_row_comes_in_every_step_equally_often(block_count, window_steps):
    """However few blocks there are: chi-square of each row's 300 steps among 10, and their mean, neither beyond 1 in 10 000.

    Bonferroni's bound for 120 rows, which also holds for rows that are not independent.
    """
    rows, epochs, cut = 120, 300, MicroBatches(12, 6)
    blocks = np.arange(block_count + 1) * rows // block_count
    shuffle = BlockShuffle(None, blocks, cut, 3, window_steps * cut.rows)
    steps = rows // cut.batch_rows
    counts, sums = np.zeros((rows, steps)), np.zeros(rows)
    for epoch in range(epochs):
        for step, parts in enumerate(dealt(shuffle, epoch, 1)):
            taken = list(chain.from_iterable(parts))
            counts[taken, step] += 1
            sums[taken] += step
    expected = epochs / steps
    found = ((counts - expected) ** 2 / expected).sum(axis=1)
    assert found.max() < chi2.isf(1e-4 / rows, steps - 1)
    deviation = np.sqrt((steps**2 - 1) / 12 / epochs)
    z = (sums / epochs - (steps - 1) / 2) / deviation
    assert (z**2).max() < chi2.isf(1e-4 / rows, 1)


def _learned(epochs: list[list[np.ndarray]]) -> float:
    """Accuracy on new rows of a softmax regression that was trained on blobs, sorted by class, in the steps of some epochs."""
    random = np.random.default_rng(0)
    centres = 0.6 * random.standard_normal((CLASSES, 16))
    labels = random.integers(0, CLASSES, 4000)
    x, new = (centres[of] + random.standard_normal((len(of), 16)) for of in (CLASS_OF, labels))
    weight, one_hot = np.zeros((16, CLASSES)), np.eye(CLASSES)
    for rows in chain.from_iterable(epochs):
        z = x[rows] @ weight
        p = np.exp(z - z.max(axis=1, keepdims=True))
        error = p / p.sum(axis=1, keepdims=True) - one_hot[CLASS_OF[rows]]
        weight -= x[rows].T @ error / len(rows)
    return (np.argmax(new @ weight, axis=1) == labels).mean()


@pytest.mark.parametrize("window_steps", WINDOW_STEPS)
def test_rows_sorted_by_class_are_learned_as_from_the_full_shuffle(window_steps):
    """Within 0.02, 3 standard errors of an accuracy on 4 000 rows; in the order of the file the first classes are forgotten."""
    full = _learned(_epochs(FullShuffle(ROWS, None, CUT, 1))[:3])
    blocks = _learned(_epochs(_blocks(window_steps))[:3])
    in_order = _learned([IN_ORDER] * 3)
    assert full > 0.65
    assert blocks > full - 0.02
    assert in_order < full - 0.15
