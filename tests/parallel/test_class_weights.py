"""Class weights in whole runs: the same bits on any ranks, kept in checkpoints, in the loss and in no other figure."""

import numpy as np
import pytest

from lepton_mpi.commands import evaluate
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import sources
from lepton_mpi.run.fit import train
from lepton_mpi.run.trained import load_trained
from tests.parallel.alone import trained_alone
from tests.parallel.together import check, refused, together
from tests.serial.data_files import write


def _train(world, **options):
    chosen = sources.from_program({"progress": "none", "epochs": 2, **options})
    return train(chosen.config, world, given=chosen.given)


def _rare(folder, world):
    """Two classes, of which one has a row of twenty."""
    if world.rank == 0:
        random = np.random.default_rng(0)
        x, y = random.normal(size=(1000, 6)).astype("f4"), (np.arange(1000) % 20 == 0).astype("i4")
        x[y == 1] += 0.8
        write(folder / "rare.h5", {"x": x, "y": y})
    world.comm.Barrier()
    return str(folder / "rare.h5")


@pytest.mark.parametrize("model", ["mlp", "logistic", "cnn"])
def test_same_bits(world, folder, model):
    """Those of a training in which no rank occurs."""
    data = "digits" if model == "cnn" else _rare(folder, world)
    options = {"data": data, "model": model, "class_weights": "balanced", "epochs": 2}
    config = sources.from_program({"progress": "none", **options}).config
    expected = world.broadcast(trained_alone(config) if world.rank == 0 else None)
    result = train(config, world, given=frozenset(options))
    check(world, result["weights_digest"] == expected, result["weights_digest"])


def test_rare_classes_count_and_a_run_goes_on_with_its_weights(world, folder, capfd):
    """Recall of the rare class rises; accuracy is not weighted; resume, evaluate and the checkpoint know the weights."""
    data = _rare(folder, world)
    plain = _train(world, data=data, model="logistic", epochs=10)
    runs = str(folder / "runs")
    options = {"data": data, "model": "logistic", "class_weights": "balanced", "checkpoint": runs}
    whole = _train(world, **options, epochs=10)
    with together(world):
        confusions = [np.array(result["test_confusion"]) for result in (plain, whole)]
        assert confusions[0][1, 1] < confusions[1][1, 1]
        for result, found in zip((plain, whole), confusions, strict=True):
            assert result["test_accuracy"] == np.trace(found) / found.sum()
    trained = load_trained(folder / "runs", None, world)
    with together(world):
        # Of 640 training rows; the mean over them is 1.
        weights = trained.model.class_weights
        assert weights[1] > 5 * weights[0] > 2
    capfd.readouterr()
    evaluate.evaluate_checkpoint(folder / "runs", None, "test", world)
    said = capfd.readouterr().out
    with together(world):
        assert world.rank > 0 or f"loss {whole['test_loss']:.4f}" in said
    short = _train(world, **options | {"checkpoint": str(folder / "short")}, epochs=4)
    resumed = _train(world, data=data, resume=str(folder / "short"), epochs=10)
    with together(world):
        assert short["weights_digest"] != whole["weights_digest"] == resumed["weights_digest"]
    with refused(world, ConfigurationError, "--class-weights: expected balanced"):
        _train(world, data=data, resume=str(folder / "short"), class_weights="1,2", epochs=10)


def test_other_data_and_models_are_refused(world, folder):
    if world.rank == 0:
        x = np.ones((40, 2), "f4") * np.arange(40, dtype="f4")[:, None]
        write(folder / "t.h5", {"x": x, "y": x[:, :1]})
    world.comm.Barrier()
    with refused(world, ConfigurationError, "--class-weights: expected data of classes"):
        _train(world, data=str(folder / "t.h5"), class_weights="balanced")
