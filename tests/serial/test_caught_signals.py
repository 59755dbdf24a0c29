"""Signals are caught in a block, and only in the process that began it."""

import json
import subprocess
import sys

_PROGRAM = """
import json, os, signal
from lepton_mpi.world.stopping import SIGNALS, caught_signals
registered = []
register = os.register_at_fork
os.register_at_fork = lambda **hooks: (registered.append(hooks), register(**hooks))

mine = lambda number, frame: None
reading, writing = os.pipe()
os.set_blocking(writing, False)
usual = {number: signal.getsignal(number) for number in SIGNALS}

def handlers():
    return [signal.getsignal(number) == usual[number] for number in SIGNALS]

found = {"in_block": []}
for _ in range(3):
    with caught_signals(writing):
        os.kill(os.getpid(), signal.SIGTERM)
        found["in_block"].append([os.read(reading, 1)[0], handlers()])
        signal.signal(signal.SIGUSR2, mine)
        child = os.fork()
        if not child:
            # 7: all as before, but what the program has chosen itself.
            is_mine = signal.getsignal(signal.SIGUSR2) is mine
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            if is_mine and all(handlers()) and not os.fork():
                os._exit(0)
            os._exit(7 if is_mine and all(handlers()) and signal.set_wakeup_fd(-1) == -1 else 1)
        found["child"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found["mine_stays"] = signal.getsignal(signal.SIGUSR2) is mine
    signal.signal(signal.SIGUSR2, usual[signal.SIGUSR2])
    child = os.fork()  # the block is over: there is nothing to give back
    if not child:
        os._exit(0 if all(handlers()) else 1)
    found["child_after"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
found |= {"after": handlers(), "hooks": len(registered)}
print(json.dumps(found))
"""


def test_children_and_later_blocks_have_the_usual_signals():
    """A signal is a byte in the file; a forked child has the handlers of before; one hook, however many blocks."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60
    )
    found = json.loads(ended.stdout) if not ended.returncode else ended.stderr
    assert found == {
        "in_block": [[15, [False] * 4]] * 3,
        "child": 7,
        "mine_stays": True,
        "child_after": 0,
        "after": [True] * 4,
        "hooks": 1,
    }
