"""The learning rate of a run, by its options."""

from lepton_mpi.optimizers.learning_rate import ReducedRate, Schedule
from lepton_mpi.options.config import Config
from lepton_mpi.run.arithmetic import Arithmetic


def learning_rate(config: Config, steps_per_epoch: int, rules: Arithmetic) -> ReducedRate:
    """Of every step of the run."""
    grows = config.batch_rows / config.base_batch if config.base_batch else 1.0
    by_step = "constant" if config.schedule == "plateau" else config.schedule
    schedule = Schedule(
        *(config.peak_rate * grows, by_step),
        *(config.warmup_epochs * steps_per_epoch, config.epoch_count * steps_per_epoch),
        *(config.schedule_epochs * steps_per_epoch, config.schedule_factor),
        counts_from_1=rules.rates_count_from_1,
    )
    return ReducedRate(schedule)
