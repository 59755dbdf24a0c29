"""Makes the embedded table of loans: python lepton_mpi/data/embedded/make_loans.py

A synthetic risk model: the applicants of Agrawal, Imielinski and Swami, "Database mining: a performance perspective", IEEE
Transactions on Knowledge and Data Engineering 5, 1993, and the disposable income of their function 10, which here is a part of
log-odds, so that outcomes are uncertain; and effects of categories, which theirs has not:

    log-odds of default = - income / 25 000 + effect of employer + effect of make and zone together + 1 if the employer is not told

``make_table`` is a function of the seed and of nothing else. The file is what ``prepare`` makes of its table.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from lepton_mpi.kernels import counter_random

SEED, ROWS, NAME = 7, 12_000, "loans"
COLUMNS = (
    "salary", "commission", "age", "education", "make", "zone", "house_value", "house_years", "loan", "employer", "default",
)  # fmt: skip
EDUCATION = ("none", "school", "college", "bachelor", "master")
MAKES, ZONES, EMPLOYERS = 20, 9, 40
WORDS = (
    *("--label", "default", "--categories", "inputs", "--missing", "constant=0"),
    *("--split", "0.6,0.1,0.3", "--dtype", "float32", "--compress", "gzip"),
)  # fmt: skip


def main() -> None:
    """Write loans.h5 beside this file."""
    cells, _ = make_table()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"{NAME}.csv"
        table.write_text("\n".join(",".join(row) for row in (COLUMNS, *cells)) + "\n")
        output = Path(__file__).parent / f"{NAME}.h5"
        words = ("prepare", str(table), str(output), *WORDS, "--force")
        subprocess.run([sys.executable, "-m", "lepton_mpi", *words], check=True)


def make_table(seed: int = SEED, rows: int = ROWS) -> tuple[list[list[str]], np.ndarray]:
    """Cells of the rows, empty where one is missing, and the probability that each row's loan defaults."""
    streams = iter(range(100))

    def uniform(low: float, high: float, count: int = rows) -> np.ndarray:
        return low + (high - low) * counter_random.uniform(seed, next(streams), count)

    def whole(count: int) -> np.ndarray:
        return uniform(0, count).astype(int)

    def effects(*shape: int) -> np.ndarray:
        """Nearly normal, of deviation 1: the sum of 12 uniform numbers."""
        return uniform(-0.5, 0.5, 12 * int(np.prod(shape))).reshape(12, *shape).sum(axis=0)

    salary, age, loan = uniform(20, 150).round(1), whole(61) + 20, uniform(0, 500).round()
    commission = np.where(salary >= 75, 0, uniform(10, 75).round(1))
    education, make, zone, employer = (whole(n) for n in (5, MAKES, ZONES, EMPLOYERS))
    value = (uniform(0.5, 1.5) * 100 * (zone + 1)).round()
    years = whole(30) + 1
    # Function 10 of the paper, in thousands.
    equity = np.where(years < 20, 0, 0.1 * value * (years - 20))
    income = 2 / 3 * (salary + commission) - 5 * education + equity / 5 - loan / 5 - 10
    untold, unknown, unasked = (uniform(0, 1) < share for share in (0.06, 0.04, 0.05))
    of_employer, of_both = 0.7 * effects(EMPLOYERS), effects(MAKES, ZONES)
    log_odds = -income / 25 + np.where(untold, 1, of_employer[employer]) + of_both[make, zone]
    probability = 1 / (1 + np.exp(-log_odds))
    default = uniform(0, 1) < probability
    columns = [
        *(salary, commission, age, np.array(EDUCATION)[education]),
        *(np.where(unknown, "", _named("make", make)), _named("zone", zone)),
        *(value.astype(int), np.where(unasked, "", years.astype(str)), loan.astype(int)),
        *(np.where(untold, "", _named("employer", employer)), np.where(default, "yes", "no")),
    ]
    return [[str(cell) for cell in row] for row in zip(*columns, strict=True)], probability


def _named(kind: str, numbers: np.ndarray) -> np.ndarray:
    """As in ``make 07``."""
    return np.array([f"{kind} {number:02}" for number in range(100)])[numbers]


if __name__ == "__main__":
    main()
