"""``python -m lepton_mpi doctor`` on a machine that is partly made up: what cannot be planted without root or a second host.

Words: a folder with made-up files of /proc and /sys, then ``NAME=VALUE`` of stand-ins, ``--``, and the doctor's own words.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace


def main() -> int:
    """Put the stand-ins in place, then start the command."""
    split = sys.argv.index("--")
    root, *given = sys.argv[1:split]
    values = dict(text.split("=") for text in given)
    from lepton_mpi import launcher
    from lepton_mpi.doctor import cores, examination, host_facts, memory, network, pages, storage

    def statvfs(path):
        megabytes = values["shm" if str(path).endswith("shm") else "disk"]
        return SimpleNamespace(f_frsize=1 << 20, f_bavail=int(megabytes), f_blocks=1 << 20)

    if root:
        modules = {"cores": cores, "memory": memory, "pages": pages}
        stand_ins = {
            name: SimpleNamespace(
                **vars(module) | {"gather": partial(module.gather, root=Path(root))}
            )
            for name, module in modules.items()
        }
        stand_ins["memory"].gather.keywords["statvfs"] = statvfs
        for name, module in stand_ins.items():
            setattr(host_facts, name, module)
        storage.gather.__defaults__ = (statvfs,)
        slow = network.Link(50e-6, float(values["link"]) * 1e6, float(values["skew"]))
        fast = network.Link(50e-6, 1e9, 0.0)
        host = os.uname().nodename

        def measure(self, *_):
            self.job.links |= {"node2": fast, "node3": fast, "node4": slow, host: fast}

        report = examination.Examination._report

        def with_links(self):
            measure(self)
            return report(self)

        examination.Examination._report = with_links
    if "stuck" in values:
        host_facts.storage = SimpleNamespace(gather=lambda *_: time.sleep(1000))
    if launcher.launched_rank() == int(values.get("silent", -1)):
        host_facts.gather = examination.gather = lambda wanted: time.sleep(1000)
        examination.threads = SimpleNamespace(variables_of=lambda _: {})
        from lepton_mpi.doctor import messages

        messages.serve = lambda *_: time.sleep(1000)
    if launcher.launched_rank() == int(values.get("late", -1)):
        time.sleep(1000)
    from lepton_mpi.__main__ import main

    return main(["doctor", *sys.argv[split + 1 :]])


if __name__ == "__main__":
    raise SystemExit(main())
