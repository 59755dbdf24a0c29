"""Runs that go on from a checkpoint end like those that never stopped; what would end otherwise is refused."""

import json
import math
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi import QuietHook
from lepton_mpi.commands import evaluate
from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.fit import train
from lepton_mpi.tasks.classes import Classes
from tests.parallel.together import check, equal_everywhere, refused, together

# 167 training rows in steps of 37: 5 an epoch, the last one short.
_ROWS, _BATCH, _STEPS = 167, 37, 5

_RUNS = {
    "adam": {"optimizer": "adam"},
    "sgd without state": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
    "momentum, float64": {"optimizer": "sgd", "learning_rate": 0.05, "dtype": "float64"},
    "lion, clipped": {"optimizer": "lion", "clip_norm": 0.5, "weight_decay": 0.1},
    "dropout, cosine, warm-up": {
        **{"dropout": 0.3, "schedule": "cosine", "warmup_epochs": 1},
        **{"optimizer": "adamw", "weight_decay": 0.1},
    },
    "augmented, dropout": {"augment": ("flip", "crop=2", "noise=0.1"), "dropout": 0.2},
    "streamed, augmented": {
        **{"loader": "streamed", "shuffle_buffer": 4000, "augment": ("flip", "noise=0.1")},
    },
    "logistic": {"data": "breast_cancer", "model": "logistic", "global_batch": 80},
    "regression": {"loss": "huber", "activation": "tanh"},
    "cnn, dropout, augmented": {
        **{"model": "cnn", "own": {"model": {"channels": (4, 6), "units": 8}}},
        **{"dropout": 0.25, "augment": ("flip", "crop=1")},
    },
    "resnet8, running statistics": {
        **{"model": "resnet8", "own": {"model": {"width": 4}}, "augment": ("crop=1", "noise=0.1")},
        **{"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 1e-4},
    },
    "speech_cnn, dropout, augmented": {
        **{"model": "speech_cnn", "own": {"model": {"width": 4, "blocks": 1}}},
        **{"dropout": 0.25, "augment": ("crop=1", "noise=0.1")},
    },
    "speech_gru, dropout, augmented": {
        **{"model": "speech_gru", "own": {"model": {"width": 5, "layers": 2}}},
        **{"dropout": 0.25, "augment": ("crop=1", "noise=0.1")},
    },
    "a copy on each rank": {"allreduce": "ring", "bucket_bytes": 1000},
}


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path, *_: None)


@pytest.fixture
def images(world, folder):
    """A file of 167 images of 6x6 in 3 classes, and 20 and 30 to look at."""
    return _written(world, folder / "images.h5", _ROWS)


def _written(world, path: Path, rows: int, scale: float = 1.0, **options) -> Path:
    with world.agreeing():
        if world.rank == 0:
            generator = np.random.default_rng(0)
            with h5py.File(path, "w") as file:
                for split, count in (("train", rows), ("validation", 20), ("test", 30)):
                    y = np.arange(count) % 3
                    x = generator.standard_normal((count, 6, 6)) * 2 + y[:, None, None]
                    file.create_dataset(f"{split}/x", data=x.astype("f4"), **options)
                    file[f"{split}/y"] = y
                file["normalisation/shift"] = np.full((6, 6), 0.5)
                file["normalisation/scale"] = np.full((6, 6), scale)
    return path


_KEEP = {"keep": 2}


@pytest.fixture
def all_kept(monkeypatch):
    """No checkpoint is removed, so that one run leaves every moment to go on from."""
    monkeypatch.setitem(_KEEP, "keep", 1000)


def _config(data, **options) -> Config:
    common = _KEEP | {"data": str(data), "epochs": 2, "global_batch": _BATCH, "hidden": (9,)}
    return Config(**(common | {"progress": "none", "learning_rate": 0.003} | options))


def _run(world, folder: Path, config: Config) -> tuple[dict, dict]:
    """Figures that times do not change: of the end, and of the epochs by their number."""
    path = folder / "metrics.jsonl"
    end = train(Config(**vars(config) | {"metrics": str(path), "metrics_append": True}), world)
    lines = world.comm.bcast(path.read_text() if world.rank == 0 else None).splitlines()
    records = [json.loads(line, parse_constant=_no_number) for line in lines]
    # A run that goes on adds its lines to those that are there.
    last = max(place for place, record in enumerate(records) if record["event"] == "start")
    records = records[last:]
    epochs = {record["epoch"]: _figures(record) for record in records if "epoch" in record}
    return _figures(end), epochs


def _no_number(text: str) -> None:
    raise AssertionError(f"{text} in the metrics file")


def _figures(record: dict) -> dict:
    names = ("loss", "accuracy", "weights_digest")
    return {
        name: value
        for name, value in record.items()
        if name in names or name.startswith(("val_", "test_", "macro_"))
    }


def _check_same_end(world, run: tuple[dict, dict], whole: tuple[dict, dict], name: str) -> None:
    """The same bits; of an epoch's loss on one rank only, since each rank adds up its rows' losses."""
    (end, epochs), (whole_end, whole_epochs) = run, whole
    with together(world):
        assert end == whole_end, name
        for number, figures in epochs.items():
            expected = dict(whole_epochs[number])
            if world.size > 1:
                expected["loss"] = pytest.approx(expected["loss"], rel=1e-12)
            assert figures == expected, f"{name}, epoch {number}"


def _stops(run: str) -> tuple[int, ...]:
    """Of 10 steps: the first, those around the epoch's end, the last one."""
    return (1, 4, 5, 6, 9, 10) if run == "adam" else (4, 6)


# -- the same end ------------------------------------------------------------------------------------


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("name", _RUNS)
def test_a_run_that_goes_on_ends_like_one_that_was_not_stopped(
    world, images, folder, all_kept, name
):
    """Weights, losses and accuracies of epochs, validation and test figures, from wherever it stopped."""
    config, saved = _config(**{"data": images} | _RUNS[name]), folder / "saved"
    whole = _run(world, folder, config)
    every = 1 if name == "adam" else 2
    saving = Config(**vars(config) | {"checkpoint": str(saved), "checkpoint_steps": every})
    _check_same_end(world, _run(world, folder, saving), whole, "saving")
    for stop in _stops(name):
        path = saved / f"step-{stop:08d}.h5"
        going_on = Config(**vars(config) | {"resume": str(path)})
        run = _run(world, folder, going_on)
        _check_same_end(world, run, whole, f"from step {stop}")
        with together(world):
            assert [*run[1]] == [*range(1 + stop // _STEPS, 3)]


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(
    ("strategy", "own"),
    [
        ("local", {"sync_every": 3}),
        ("diloco", {"sync_every": 3, "fragments": 2}),
        ("diloco", {"sync_every": 3, "across_epochs": True}),
        ("hierarchical", {"sync_every": 3}),
        ("elastic", {"sync_every": 3}),
        ("gossip", {"topology": "random_push"}),
        ("delayed", None),
        ("adasum", None),
    ],
)
def test_workers_that_go_on(world, images, folder, all_kept, strategy, own):
    """They meet where they are saved, so a run that goes on has the bits of the one that was saved there and went on."""
    if strategy == "gossip" and world.size == 1:
        pytest.skip("gossip needs two ranks")
    options = {"strategy": strategy, "own": {"strategy": own} if own else {}, "checkpoint_steps": 2}
    config = _config(images, micro_batch=9, checkpoint=str(folder / "first"), **options)
    whole = _run(world, folder, config)
    for stop in (4, 6):
        path = str(folder / "first" / f"step-{stop:08d}.h5")
        more = {"checkpoint": str(folder / f"from {stop}"), "resume": path}
        run = _run(world, folder, Config(**vars(config) | more))
        _check_same_end(world, run, whole, f"from step {stop}")


def test_a_run_that_is_stopped_again_and_again(world, images, folder, all_kept):
    """Each part begins from what the part before has left, in the same folder."""
    config = _config(images, checkpoint=str(folder / "saved"), checkpoint_steps=2, epochs=3)
    whole = _run(world, folder, config)
    saved = folder / "saved"
    going_on = Config(**vars(config) | {"resume": str(saved)})
    for kept in (4, 8, 12):  # of those before, nothing is needed
        with world.agreeing():
            if world.rank == 0:
                for path in saved.iterdir():
                    if int(path.stem.removeprefix("step-")) > kept:
                        path.unlink()
        _check_same_end(world, _run(world, folder, going_on), whole, f"from step {kept}")


def test_a_run_removes_only_its_own_checkpoints(world, images, folder):
    """A new run in the folder of another leaves that run's files, also one that it begins with; one that goes on does not."""
    saved = folder / "saved"
    first, second = ({"checkpoint": str(saved), "checkpoint_steps": n} for n in (3, 2))
    train(_config(images, **first), world)
    before = {9, 10}
    with together(world):
        assert _steps_in(saved) == before
    begun = str(saved / "step-00000009.h5")
    train(_config(images, epochs=1, initial=begun, **second), world)
    with together(world):
        assert _steps_in(saved) == {4, 5} | before
    train(_config(images, epochs=1, initial=begun, resume=str(saved), **second), world)
    train(_config(images, epochs=3, initial=begun, resume=str(saved), **second), world)
    with together(world):
        assert _steps_in(saved) == {14, 15, 9}  # that of step 10 has been written again


def _steps_in(saved: Path) -> set[int]:
    return {int(path.stem.removeprefix("step-")) for path in saved.glob("step-*.h5")}


def test_more_epochs_than_before(world, images, folder):
    """A run of 1 epoch that goes on to 2 is the run of 2."""
    whole = _run(world, folder, _config(images))
    _run(world, folder, _config(images, epochs=1, checkpoint=str(folder / "saved")))
    run = _run(world, folder, _config(images, resume=str(folder / "saved")))
    _check_same_end(world, run, whole, "from epoch 1")


@pytest.mark.parametrize(("stop", "epochs"), [(8, 1), (5, 1), (10, 2)])
def test_nothing_left_to_train(world, images, folder, all_kept, stop, epochs):
    """The end has the checkpoint's weights and its test figures, all of them finite, and names it."""
    saved = folder / "saved"
    train(_config(images, checkpoint=str(saved), checkpoint_steps=2), world)
    path = saved / f"step-{stop:08d}.h5"
    config = _config(images, epochs=epochs, resume=str(path), metrics=str(folder / "metrics"))
    end = train(config, world)
    lines = world.comm.bcast((folder / "metrics").read_text() if world.rank == 0 else None)
    with together(world):
        records = [json.loads(line, parse_constant=_no_number) for line in lines.splitlines()]
        assert [record["event"] for record in records] == ["start", "end"]
        assert end["weights_digest"] == checkpoint.load(path).attributes["weights_digest"]
        assert end["samples_per_second"] == 0
        assert 0 <= end["test_accuracy"] <= 1 and math.isfinite(end["test_loss"])
        assert end["checkpoint"] == (str(path) if world.rank == 0 else None)


def test_what_a_run_went_on_from_is_not_its_end(world, images, folder):
    """Without --checkpoint the end names no file: none has its weights."""
    train(_config(images, epochs=1, checkpoint=str(folder / "saved")), world)
    end = train(_config(images, resume=str(folder / "saved")), world)
    with together(world):
        assert end["checkpoint"] is None


class Uncounted:
    """A user's model that does not count what is correct, with a loss that stops being a number at ``end``."""

    end = None

    def __init__(self, feature_shape, class_count):
        self.shapes = {"w": (int(np.prod(feature_shape)), class_count)}

    def loss_and_gradient(self, parameters, batch, gradient):
        gradient["w"][:] = np.outer(batch.x.reshape(len(batch.x), -1).sum(axis=0), [1, 2, 3])
        return math.nan if batch.draw == self.end else float(batch.x.sum())


def test_a_model_that_counts_nothing(world, images, folder, all_kept):
    saved = folder / "saved"
    config = _config(images, checkpoint=str(saved), checkpoint_steps=2)
    whole = train(config, world, Uncounted)["weights_digest"]
    going_on = _config(images, resume=str(saved / "step-00000006.h5"))
    with together(world):
        assert (saved / "step-00000006.h5").exists()
    end = train(going_on, world, Uncounted)
    with together(world):
        assert end["weights_digest"] == whole


def test_a_checkpoint_of_an_earlier_version(world, images, folder):
    """Without what says where in the epoch: it goes on after the epoch."""
    whole = _run(world, folder, _config(images))
    saved = folder / "saved"
    train(_config(images, epochs=1, checkpoint=str(saved)), world)
    _rewrite(world, saved, without=("row", "order", "loss_sum", "correct_sum", "y_kind"))
    run = _run(world, folder, _config(images, resume=str(saved)))
    _check_same_end(world, run, whole, "earlier version")


def _rewrite(world, saved: Path, without=(), **attributes) -> None:
    """Write the newest checkpoint of a folder again with other attributes."""
    with world.agreeing():
        if world.rank == 0:
            found = checkpoint.load(checkpoint_folder.newest_first(saved)[0])
            for name in without:
                del found.attributes[name]
            found.attributes.update(attributes)
            checkpoint_folder.save(saved, found)


# -- what is no longer finite ------------------------------------------------------------------------

# The learning rate times infinity, added to the parameters.
_PLAIN = {"optimizer": "sgd", "momentum": 0.0}


def test_a_loss_that_is_not_finite_pushes_out_no_good_checkpoint(world, images, folder):
    """The run ends before it saves what is lost already; the two before stay."""
    from lepton_mpi.data.order import draws

    class Diverging(Uncounted):
        end = draws(0, 7, 1)[0]  # the eighth step

    saved = folder / "saved"
    with refused(world, ConfigurationError, "the loss became nan in epoch 2"):
        train(_config(images, checkpoint=str(saved), checkpoint_steps=1), world, Diverging)
    with together(world):
        assert sorted(path.name for path in saved.iterdir()) == [
            "step-00000006.h5",
            "step-00000007.h5",
        ]


@pytest.mark.parametrize("allreduce", ["auto", "ring"])
@pytest.mark.parametrize(
    ("step", "options", "left"),
    [
        (8, {"checkpoint_steps": 1}, ["step-00000006.h5", "step-00000007.h5"]),
        (10, {"checkpoint_steps": 3}, ["step-00000006.h5", "step-00000009.h5"]),
        (10, {}, []),
    ],
    ids=["within an epoch", "at its end", "without checkpoints"],
)
def test_parameters_that_are_not_finite_are_neither_saved_nor_a_success(
    world, images, folder, allreduce, step, options, left
):
    """Losses are those before the last update, which may be the one that goes wrong."""
    from lepton_mpi.data.order import draws

    class Exploding(Uncounted):
        def loss_and_gradient(self, parameters, batch, gradient):
            rows = float(len(batch.y))
            gradient["w"][:] = math.inf if batch.draw == draws(0, step - 1, 1)[0] else rows
            return rows

    saved = folder / "saved"
    place = {"checkpoint": str(saved)} if options else {}
    config = _config(images, allreduce=allreduce, **_PLAIN, **options, **place)
    with refused(world, ConfigurationError, "the parameters became", "in epoch 2", "learning-rate"):
        train(config, world, Exploding)
    with together(world):
        assert sorted(path.name for path in saved.glob("*")) == left


# -- what is said ------------------------------------------------------------------------------------


def test_a_folder_without_checkpoints_begins_anew_and_says_so(world, images, folder, capsys):
    whole = train(_config(images), world)["weights_digest"]
    for place in (folder, folder / "not yet"):
        capsys.readouterr()
        end = train(_config(images, resume=str(place), progress="plain"), world)
        printed = capsys.readouterr().out
        with together(world):
            assert end["weights_digest"] == whole
            if world.rank == 0:
                assert f"resume    nothing to go on from in {place}: begins anew\n" in printed


@pytest.mark.parametrize(("epochs", "said"), [(2, True), (1, True), (3, False)])
def test_where_nothing_is_left_to_train_that_is_said(world, images, folder, capsys, epochs, said):
    """As many epochs are done as are asked for, or more."""
    saved = folder / "saved"
    train(_config(images, checkpoint=str(saved), epochs=2), world)
    capsys.readouterr()
    train(_config(images, resume=str(saved), epochs=epochs, progress="plain"), world)
    printed = capsys.readouterr().out
    with together(world):
        if world.rank == 0:
            line = f"nothing is left to train: 2 epochs are done, --epochs {epochs} asks"
            assert (line in printed) == said, printed


def test_damage_is_skipped_and_said(world, images, folder, capsys):
    """From the file before, and with the same end; where all are damaged the run does not begin anew."""
    saved = folder / "saved"
    config = _config(images, checkpoint=str(saved), checkpoint_steps=3)
    whole = _run(world, folder, config)
    going_on = _config(images, resume=str(saved), progress="plain")
    _damage(world, saved / "step-00000010.h5")
    capsys.readouterr()
    _check_same_end(world, _run(world, folder, going_on), whole, "from step 9")
    printed = capsys.readouterr().out
    with together(world):
        if world.rank == 0:
            assert f"skipped {saved}/step-00000010.h5: damaged" in printed
            assert f"goes on from {saved}/step-00000009.h5, epoch 2, row 148, step 9\n" in printed
    _damage(world, saved / "step-00000009.h5")
    with refused(world, DataError, str(saved), "step-00000009.h5: damaged", "step-00000010.h5"):
        train(going_on, world)


def _damage(world, path: Path) -> None:
    with world.agreeing():
        if world.rank == 0:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


# -- what is refused ---------------------------------------------------------------------------------


def test_other_data_and_other_models_are_refused(world, images, folder, all_kept):
    """Each by what it is that differs; in the middle of an epoch and at its end."""
    saved = folder / "saved"
    train(_config(images, epochs=1, checkpoint=str(saved), checkpoint_steps=3), world)
    longer = _written(world, folder / "longer.h5", _ROWS + 1)
    scaled = _written(world, folder / "scaled.h5", _ROWS, scale=2.0)
    for step in (3, 5):
        place = {"resume": str(saved / f"step-{step:08d}.h5")}
        with refused(world, DataError, "rows 167 to 168", "--data"):
            train(_config(longer, **place), world)
        with refused(world, DataError, "normalisation/scale", "prepared anew"):
            train(_config(scaled, **place), world)
        with refused(world, DataError, "expected parameters", "layer0/weight"):
            train(_config(images, **place), world, Uncounted)
    _rewrite(world, saved, without=("row", "order", "loss_sum", "correct_sum"))
    shorter = _written(world, folder / "shorter.h5", _ROWS - _BATCH)
    with refused(world, DataError, "expected step 4", "of 130 training rows", "got step 5"):
        train(_config(shorter, resume=str(saved)), world)


def test_another_shuffle_buffer_is_refused(world, images, folder):
    """Where rows are shuffled in blocks; where they are not it means nothing."""
    saved, blocks = folder / "saved", {"shuffle": "blocks", "shuffle_buffer": 4000}
    train(_config(images, epochs=1, checkpoint=str(saved), **blocks), world)
    with refused(world, DataError, "window_rows", "--shuffle-buffer"):
        train(_config(images, resume=str(saved), shuffle="blocks", shuffle_buffer=40_000), world)
    with refused(world, DataError, "shuffle blocks to full", "--shuffle"):
        asked = {"shuffle": "full", "shuffle_buffer": 4000}
        train(_config(images, resume=str(saved), **asked), world)


@pytest.mark.parametrize("loader", ["memory", "streamed"])
def test_other_features_of_the_same_labels_are_refused(world, images, folder, loader):
    """One number of one row; what is read in another way is the same, and so is a checkpoint that does not know them."""
    saved, shuffle = folder / "saved", {"shuffle": "blocks", "shuffle_buffer": 4000}
    train(_config(images, epochs=1, checkpoint=str(saved), loader="mapped", **shuffle), world)
    train(_config(images, resume=str(saved), loader=loader, **shuffle), world)
    with world.agreeing():
        if world.rank == 0:
            with h5py.File(images, "r+") as file:
                file["train/x"][101, 2, 3] += 1
    with refused(world, DataError, "others that have the same labels", "--initial"):
        train(_config(images, resume=str(saved), loader=loader, **shuffle), world)


def test_files_in_another_order_are_refused(world, folder):
    """As many rows of the same shape, of which some would come twice and others never."""
    saved, paths = folder / "saved", [folder / "80.h5", folder / "87.h5"]
    for path in paths:
        _written(world, path, int(path.stem))
    options = vars(_config("either", epochs=1))
    there = tuple(map(str, paths))
    train(Config(**options | {"data": there, "checkpoint": str(saved)}), world)
    again = options | {"epochs": 2, "resume": str(saved)}
    with refused(world, DataError, "y_digest", "--data with its files in their order"):
        train(Config(**again | {"data": there[::-1]}), world)
    with world.agreeing():
        if world.rank == 0:
            for path in paths:
                path.rename(path.with_suffix(".hdf5"))
    moved = tuple(str(path.with_suffix(".hdf5")) for path in paths)
    end = train(Config(**again | {"data": moved}), world)
    whole = train(Config(**options | {"data": moved, "epochs": 2}), world)
    with together(world):
        assert end["weights_digest"] == whole["weights_digest"]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"row": 38}, ["attribute row", "multiple of 37", "got 38"]),
        ({"step": 2**62}, ["expected step 3", "got step"]),
        ({"epoch": 2**62}, ["expected step", "got step 3"]),
        ({"order": '{"shuffle": "none", "rows": 167}'}, ["shuffle none to"]),
    ],
    ids=["row", "step", "epoch", "shuffle"],
)
def test_places_that_no_run_has_stopped_at(world, images, folder, attributes, words):
    """What only a stranger writes ends in one line, on all ranks, before the first step."""
    saved = folder / "saved"
    train(_config(images, epochs=1, checkpoint=str(saved), checkpoint_steps=3), world)
    with world.agreeing():
        if world.rank == 0:
            (saved / "step-00000005.h5").unlink()
    _rewrite(world, saved, **attributes)
    path = world.comm.bcast(checkpoint_folder.newest_first(saved)[0] if world.rank == 0 else None)
    with refused(world, DataError, str(path), *words):
        train(_config(images, resume=str(path)), world)


# -- augmentation ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_augmented_rows_are_the_same_however_they_are_loaded(world, images, folder):
    """Copied from chunks, mapped from one piece, or streamed; it changes the weights, by each of its words."""
    apart = _written(world, folder / "chunks.h5", _ROWS, chunks=(7, 6, 6))
    common = {"shuffle": "blocks", "shuffle_buffer": 4000, "augment": ("flip", "crop=1", "noise=1")}
    same = {
        train(_config(data, loader=way, **common), world)["weights_digest"]
        for data in (images, apart)
        for way in ("memory", "mapped", "streamed")
        if (data, way) != (apart, "mapped")
    }
    words = ((), ("flip",), ("crop=1",), ("noise=1",), common["augment"])
    others = {train(_config(images, augment=each), world)["weights_digest"] for each in words}
    with together(world):
        assert len(others) == len(words)
        assert len(same) == 1


def test_evaluation_is_never_augmented(world, images, folder, capsys):
    """``evaluate``, which knows nothing of it, has the figures that the run printed at its end."""
    saved = folder / "saved"
    config = _config(images, augment=("flip", "crop=3", "noise=3"), checkpoint=str(saved))
    end = train(config, world)
    path = world.comm.bcast(end["checkpoint"])
    capsys.readouterr()
    evaluate.evaluate_checkpoint(Path(path), None, "test", world)
    printed = capsys.readouterr().out
    figures = {name.removeprefix("test_"): value for name, value in end.items()}
    with together(world):
        assert world.rank != 0 or Classes((), np.dtype(np.float32)).sentence(figures) in printed


@pytest.mark.parametrize(
    ("data", "words"), [("breast_cancer", ["flip", "(30,)"]), ("digits", ["crop", "8 pixels", "9"])]
)
def test_rows_that_cannot_be_augmented(world, data, words):
    with refused(world, ConfigurationError, "--augment", *words):
        train(_config(data, augment=("flip",) if data != "digits" else ("crop=9",)), world)


class _Slow(QuietHook):
    """Steps of 4 ms on rank 0 alone; remembers after which of them its rank wrote a checkpoint."""

    def __init__(self, world) -> None:
        self._world, self.steps, self._before = world, [], 0.0

    def after_step(self, run) -> None:
        if self._world.rank == 0:
            time.sleep(0.004)
        self._world.clock.enter("compute")
        now = self._world.clock.seconds["checkpoint"]
        if now > self._before:
            self.steps.append(run.step)
        self._before = now

    def before_epoch(self, run) -> None:
        self._world.clock.enter("compute")
        self._before = self._world.clock.seconds["checkpoint"]


def test_checkpoints_by_time_are_of_one_step(world, folder):
    """Some of them within the 18 steps of an epoch, after the same on all ranks, and a run goes on from one to the same end."""
    options = {"epochs": 4, "progress": "none"}
    whole = train(Config(**options), world)
    hook = _Slow(world)
    config = Config(**options, checkpoint=str(folder / "runs"), save_every=0.05)
    saved = train(config, world, hooks=[hook])
    equal_everywhere(world, hook.steps)
    check(world, len(hook.steps) >= 2 and any(step % 18 for step in hook.steps), str(hook.steps))
    check(world, saved["weights_digest"] == whole["weights_digest"])
    early = train(
        Config(**options | {"epochs": 1}, checkpoint=str(folder / "b"), save_every=0.03),
        world,
        hooks=[_Slow(world)],
    )
    parts = sorted((folder / "b").glob("step-*.h5"))
    first = world.broadcast(str(parts[0]) if world.rank == 0 else "")
    again = train(Config(**options, resume=first), world)
    check(world, again["weights_digest"] == whole["weights_digest"] != early["weights_digest"])
