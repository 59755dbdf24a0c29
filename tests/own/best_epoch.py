"""A hook of one's own: remembers the best epoch, and stops nothing."""

from lepton_mpi import QuietHook


class BestEpoch(QuietHook):
    """Named by ``--hook tests/own/best_epoch.py:BestEpoch``; called with the run."""

    def __init__(self, run):
        self.best, self.steps = (0.0, 0), 0

    def after_step(self, run):
        self.steps += 1

    def after_epoch(self, run):
        self.best = max(self.best, (run.figures["val_accuracy"], run.epoch))

    def at_end(self, run):
        run.report.say("best", f"epoch {self.best[1]}, after {self.steps} steps")
        run.result["best_epoch"] = self.best[1]
