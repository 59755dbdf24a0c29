"""Runs torch's own tests of c10d on lepton and prints a table: ``python -m tests.torch.torchs_own_suite [--ranks 3]``.

A test that ends the job is noted, and the others go on in a new one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("programs") / "torchs_own.py"
_LIMIT_SECONDS = 3600


def outcomes(ranks: int, results: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each test."""
    launch = os.environ.get("LEPTON_TEST_LAUNCH", f"{_ROOT}/run_local.sh mpi").split()
    results.touch()
    while True:
        ended = subprocess.run(
            [
                *launch,
                str(ranks),
                sys.executable,
                "-W",
                "ignore",
                str(_PROGRAM),
                str(results),
                *names,
            ],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_SECONDS,
        )
        lines = [line.split("\t") for line in results.read_text().splitlines()]
        if ended.returncode == 0:
            break
        if not lines or lines[-1][0] != "started":
            raise SystemExit(ended.stderr)
        said = [line for line in ended.stderr.splitlines() if line.startswith("lepton_mpi")]
        with results.open("a") as file:
            file.write(f"ended the job\t{lines[-1][1]}\t{(said or ['without a word'])[0]}\n")
    return {name: (outcome, reason) for outcome, name, reason in lines if outcome != "started"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--results", type=Path, help="file to go on with")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    results = options.results or Path(tempfile.mkstemp(suffix=".tsv")[1])
    found = outcomes(options.ranks, results, options.names)
    for name, (outcome, reason) in sorted(found.items(), key=lambda item: item[1]):
        print(f"{outcome:14}{name:60}{reason}")
    print(dict(Counter(outcome for outcome, _ in found.values())))


if __name__ == "__main__":
    main()
