"""Carries out several commands in one job, one after the other: ``python command_driver.py COMMANDS.json``.

The file holds a list of lists of the words behind ``python``. Before each, and behind the last, rank 0 prints a line with
``MARK``; behind it stands the exit code of the command before. A start of the interpreter for each would take most of the time.
"""

import json
import runpy
import sys
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.__main__ import main

MARK = "=== exit code of the command before:"


def carry_out(words: list[str]) -> int:
    """As ``python WORDS`` does, as far as these commands tell; the exit code."""
    try:
        if words[0] != "-m":
            runpy.run_path(words[0], run_name="__main__")
            return 0
        module, *rest = words[1:]
        return main(["train", *rest] if module == "lepton_mpi.train" else rest)
    except SystemExit as leaving:
        return int(leaving.code or 0)


if __name__ == "__main__":
    code = 0
    for words in [*json.loads(Path(sys.argv[1]).read_text("utf-8")), []]:
        if launcher.launched_rank() == 0:
            print(f"{MARK} {code}", flush=True)
        code = carry_out(words) if words else 0
