"""``--initial`` and ``--freeze`` in whole runs: the same bits on any number of ranks, what is frozen stays, the same errors on all ranks."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.models.torch_names import torch_names
from lepton_mpi.options.config import Config
from lepton_mpi.run import loop
from lepton_mpi.run.build import build
from lepton_mpi.run.fit import train
from tests.parallel.alone import trained_alone
from tests.parallel.test_own_parts import OWN
from tests.parallel.together import equal_everywhere, refused, together
from tests.serial.raw_files import write_torch_resnet


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path, *_: None)


def _config(**options) -> Config:
    plain = {"data": ("digits",), "model": "resnet8", "epochs": 2, "progress": "none"}
    return Config(**plain | {"learning_rate": 0.01, "global_batch": 200} | options)


@pytest.fixture
def torchs(world, folder):
    """A resnet8 as torch would write it, with a head for 7 classes, and its arrays by torch's names."""
    path = folder / "resnet8.safetensors"
    with world.agreeing():
        if world.rank == 0:
            write_torch_resnet(path)
    world.comm.Barrier()
    return path, load_file(path)


# Options, and the digest of the weights on any number of ranks.
_CASES = [
    ({}, "b4aac445fe3a310a1cc279c134fc509f"),
    ({"freeze": ("stem/*", "stage[01]*")}, "658da674c7d7381cb1b21237e8ac8c77"),
    (
        {"freeze": ("*norm*", "stage*conv*"), "weight_decay": 0.1, "clip_norm": 0.5},
        "bd86f906746d0e2723aa7c4bad0c2eaf",
    ),
    (
        {"freeze": ("stage*", "stem*"), "recompute": 1, "augment": ("crop=1",), "optimizer": "sgd"},
        "44b1135109ad500a79e0354a3c5f6b23",
    ),
]


@pytest.mark.parametrize(("options", "digest"), _CASES, ids=lambda v: str(v)[:60])
def test_weights_have_the_same_bits_on_any_number_of_ranks(world, torchs, options, digest):
    """With a new head; what is frozen has the bits of the file at the end, its running statistics among them."""
    path, arrays = torchs
    config = _config(initial=str(path), initial_strict=False, **options)
    run = build(config, world)
    frozen, table = run.model.frozen, torch_names("resnet8", run.model.shapes)
    loop.train(run)
    result, ended = run.result, {name: array.copy() for name, array in run.parameters.items()}
    run.close()
    with together(world):
        for name, stored in table.items():
            is_same = np.array_equal(stored.theirs(ended[name]), arrays[stored.name])
            assert is_same == (name in frozen), name
        assert result["weights_digest"] == digest


@pytest.mark.parametrize("allreduce", ["auto", "ring", "mpi"])
@pytest.mark.parametrize("model", ["mlp", "logistic"])
def test_frozen_parameters_are_as_if_their_gradient_were_0(world, model, allreduce):
    """In every executor: a training without ranks, in which nobody freezes anything but gradients are set to 0, has the same end."""
    options = {"model": model, "global_batch": 64, "optimizer": "sgd", "clip_norm": 0.5}
    options |= {"data": ("breast_cancer",), "hidden": (6,)}
    frozen = ("layer0/*",) if model == "mlp" else ("bias",)
    config = _config(freeze=frozen, allreduce=allreduce, **options)
    digest = train(config, world)["weights_digest"]
    equal_everywhere(world, digest)
    expected = trained_alone(config)
    with together(world):
        assert expected != trained_alone(_config(**options))
        assert digest == expected or (allreduce != "auto" and world.size > 2)


def test_a_folder_of_checkpoints(world, folder):
    """The newest that is whole; parameters only: step 0, no optimizer state, and a rate of nearly 0 leaves them."""
    saved = folder / "saved"
    first = train(_config(model="mlp", checkpoint=str(saved)), world)
    config = _config(model="mlp", initial=str(saved), learning_rate=1e-12, epochs=1)
    run = build(config, world)
    begun = {name: array.copy() for name, array in run.parameters.items()}
    assert (run.step, run.start.goes_on) == (0, False)
    states = [vector.copy() for vector in run.strategy.state().values()]
    notes = world.comm.bcast(run.start.initial_notes)
    world.comm.Barrier()
    loop.train(run)
    run.close()
    with together(world):
        assert not any(state.any() for state in states) and len(states) == 2
        for name, array in first["parameters"].items():
            np.testing.assert_array_equal(begun[name], array)
        assert "is the newest checkpoint that is whole" in notes[0]
        assert notes[1].startswith("takes all 4 parameters of ")


@pytest.mark.parametrize("stop", [3, 6])
def test_a_run_goes_on_without_the_file(world, folder, torchs, stop):
    """What is frozen is an option of the checkpoint; --initial is no longer looked at. The end has the bits of one run."""
    path, _ = torchs
    saved = folder / "saved"
    options = {"initial": str(path), "initial_strict": False, "freeze": ("stem*", "stage0*")}
    whole = train(_config(**options, checkpoint=str(saved), checkpoint_steps=stop, keep=100), world)
    middle = saved / f"step-{stop:08d}.h5"
    going_on = {"resume": str(middle), "data": ("digits",), "progress": "none"}
    run = build(Config(**going_on), world, given=frozenset(going_on))
    frozen = run.config.freeze
    loop.train(run)
    result = run.result
    run.close()
    with together(world):
        assert frozen == ("stem*", "stage0*")
        assert result["weights_digest"] == whole["weights_digest"]
    given = frozenset(going_on) | {"freeze"}
    with refused(world, ConfigurationError, "--freeze: expected ('stem*', 'stage0*') as in"):
        build(Config(**going_on, freeze=("stem*",)), world, given=given)


def test_what_does_not_fit_is_the_same_error_on_all_ranks(world, folder, torchs):
    path, _ = torchs
    with refused(world, ConfigurationError, str(path), "classes/weight (fc.weight: expected (10"):
        train(_config(initial=str(path)), world)
    with refused(world, ConfigurationError, "got none that fits"):
        train(_config(initial=str(path), model="mlp"), world)
    with refused(world, DataError, "no such file"):
        train(_config(initial=str(folder / "none.safetensors")), world)
    with refused(world, DataError, str(folder), "got none", "resnet8.safetensors names a file"):
        train(_config(initial=str(folder)), world)
    with refused(world, ConfigurationError, "--freeze fc*: expected a pattern that fits"):
        train(_config(freeze=("fc*",)), world)
    with refused(world, ConfigurationError, "--freeze: expected a strategy that leaves frozen"):
        train(_config(freeze=("stem*",), strategy=f"{OWN}/local_sgd.py:LocalSgd"), world)
