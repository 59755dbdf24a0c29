"""What is to be explained: rows of a trained model, and of each the output whose score is asked about, with names for people."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.data.rows import Rows
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.interpretation.scored import values_of
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.as_network import as_network
from lepton_mpi.models.network import Network
from lepton_mpi.run import generation
from lepton_mpi.run.trained import Trained
from lepton_mpi.tasks.tokens import shown
from lepton_mpi.wording import did_you_mean, one_line

# Rows of the mean baseline that are read at a time.
_ROWS = 256


@dataclass(frozen=True)
class Question:
    """Rows, and what is asked of them.

    Attributes
    ----------
    data : DataSet
    network : Network
        The model's equal, see ``models/as_network.py``.
    parameters : dict of str to array
    inputs : tuple of array
        Of the network, in its order, each (rows, …).
    outputs : int32, shape (rows,), or (rows, length) of a text
        As of ``Scored.at``.
    length : int
        Of a text: the tokens that are looked at; 0 for others.
    titles : list of str
        Of each row.
    unit : float
        What a score of 1 is in the units of people: 1 but for scaled targets.
    about : str
        What the score is.
    """

    data: DataSet
    network: Network
    parameters: dict[str, Array]
    inputs: tuple[Array, ...]
    outputs: Array
    length: int
    titles: list[str]
    unit: float
    about: str

    @property
    def names(self) -> list[str]:
        """Of the inputs; of the only one that of the data."""
        names = list(self.network.inputs)
        return list(self.data.inputs) if len(names) == 1 else names

    def token_texts(self, row: int) -> list[str]:
        """Of a text: the tokens that are looked at, as a picture can show them."""
        return token_texts(self.data, self.inputs[0][row, : self.length])


@dataclass(frozen=True)
class Asked:
    """The options: rows [start, stop) of a split, the output, of a text how many tokens of a row and perhaps a text instead of rows."""

    split: str
    start: int
    stop: int
    target: str | None
    tokens: int
    prompt: str | None


def ask(found: Trained, asked: Asked) -> Question:
    """Read the rows and look at what the model says of them. One rank calls it. Raises ConfigurationError, DataError."""
    network, parameters = as_network(found.model, found.parameters)
    batch = _prompt(found, asked) if asked.prompt is not None else _read(found.data, asked)
    first = 0 if asked.prompt is not None else asked.start
    arrays = [batch.x] if len(network.inputs) == 1 else [batch.inputs[n] for n in network.inputs]
    specs = network.inputs.values()
    inputs = tuple(a.reshape(len(a), *spec.shape) for a, spec in zip(arrays, specs, strict=True))
    given = found.data, network, parameters, inputs
    if found.data.y_kind == "tokens":
        length = min(asked.tokens, inputs[0].shape[1])
        if asked.prompt is not None:
            length = int((batch.y[0] >= 0).sum())
        outputs, titles, about = _of_text(found, parameters, network, inputs, length, asked.target)
        titles = [f"row {first + i}: {t}" for i, t in enumerate(titles)]
        return Question(*given, outputs, length, titles, 1.0, about)
    predicted = np.empty((len(batch.y), found.data.output_count), found.data.dtype)
    found.model.predict(found.parameters, batch, predicted)
    of_kind = _of_classes if found.data.class_count else _of_targets
    outputs, titles, unit, about = of_kind(found.data, batch, predicted, asked.target)
    titles = [f"row {first + i}: {t}" for i, t in enumerate(titles)]
    return Question(*given, outputs, 0, titles, unit, about)


def mean_rows(found: Trained, rows: Rows) -> dict[str, Array]:
    """The mean of each input of numbers over rows, float64, flat; for a baseline. One rank calls it."""
    numbers = [name for name, spec in found.data.inputs.items() if spec.kind == "numbers"]
    sums = {name: np.zeros(found.data.inputs[name].size) for name in numbers}
    for batch in _batches(found.data, rows, 0, rows.row_count):
        arrays = {numbers[0]: batch.x} if batch.named is None and numbers else batch.inputs
        for name in numbers:
            sums[name] += arrays[name].reshape(len(batch.y), -1).sum(axis=0, dtype=np.float64)
    return {name: total / max(1, rows.row_count) for name, total in sums.items()}


def token_texts(data: DataSet, tokens: Array) -> list[str]:
    """Tokens as a picture can show them."""
    known = data.vocabulary
    return [shown(known[t]) if t < len(known) else str(t) for t in tokens.tolist()]


def _batches(data: DataSet, rows: Rows, start: int, stop: int) -> Iterator[Batch]:
    reader = BatchReader(data, min(_ROWS, max(1, stop - start)))
    for read in reads_in_order(rows, start, stop, reader.rows_max):
        yield reader.read(read)


def _read(data: DataSet, asked: Asked) -> Batch:
    """The rows in memory of their own. Raises ConfigurationError for rows that there are not."""
    rows = data.splits[asked.split]
    if not asked.stop <= rows.row_count:
        have = {name: split.row_count for name, split in data.splits.items()}
        listed = ", ".join(f"{count} {name}" for name, count in have.items())
        raise ConfigurationError(
            f"--rows {asked.start}:{asked.stop}: expected rows of the {rows.row_count} {asked.split} rows of {data.name}, which "
            f"has {listed}; --split chooses"
        )
    parts = [
        (b.x.copy(), b.y.copy(), {name: a.copy() for name, a in b.inputs.items()})
        for b in _batches(data, rows, asked.start, asked.stop)
    ]
    x, y = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    named = {name: np.concatenate([part[2][name] for part in parts]) for name in parts[0][2]}
    return Batch(x, y, named=None if list(data.inputs) == ["x"] else named)


def _prompt(found: Trained, asked: Asked) -> Batch:
    """A text of the user's as a row, filled up with tokens that nothing before them sees; ``y`` is 0 where it is the text."""
    assert asked.prompt is not None
    data = found.data
    if data.y_kind != "tokens" or not data.vocabulary:
        raise ConfigurationError(
            f"--prompt: expected a model of texts whose tokens are known, got {found.model}, of {data.outputs_text}"
        )
    tokens = generation.encode(asked.prompt.encode(), data.vocabulary)
    context = data.feature_shape[0]
    if not 0 < len(tokens) <= context:
        raise ConfigurationError(
            f"--prompt: expected 1 to {context} tokens, the model's context, got {len(tokens)}"
        )
    x, y = np.zeros((1, context), np.int32), np.full((1, context), -1, np.int32)
    x[0, : len(tokens)], y[0, : len(tokens)] = tokens, 0
    return Batch(x, y, named={"tokens": x})


def _of_text(
    found: Trained,
    parameters: dict[str, Array],
    network: Network,
    inputs: tuple[Array, ...],
    length: int,
    target: str | None,
) -> tuple[Array, list[str], str]:
    """Of the token behind the last that is looked at."""
    head = network.graph.head
    states = values_of(network, parameters, inputs, head.inputs)[head.inputs[0]]
    logits = states[:, length - 1].astype(np.float64)
    if "weight" in head.parameters:
        logits = logits @ parameters[head.parameters["weight"]].T.astype(np.float64)
    chosen = logits.argmax(axis=1)
    if target is not None:
        chosen[:] = _token(found.data, target)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    outputs = np.full(inputs[0].shape, -1, np.int32)
    outputs[:, length - 1] = chosen
    names = token_texts(found.data, chosen)
    titles = [f"next {n!s}, {odds[i, chosen[i]]:.3f}" for i, n in enumerate(names)]
    return outputs, titles, f"the logit of the token behind the first {length}"


def _of_classes(
    data: DataSet, batch: Batch, predicted: Array, target: str | None
) -> tuple[Array, list[str], float, str]:
    chosen = predicted.argmax(axis=1).astype(np.int32)
    if target is not None:
        chosen[:] = _number("class", target, data.class_names)
    titles = []
    for i, row in enumerate(predicted):
        likeliest = int(row.argmax())
        true = f"true {data.class_names[batch.y[i]]}, " if data.has_labels else ""
        title = f"{true}predicted {data.class_names[likeliest]}, {row[likeliest]:.3f}"
        if chosen[i] != likeliest:
            title += f"; explained {data.class_names[chosen[i]]}, {row[chosen[i]]:.3f}"
        titles.append(title)
    about = "the class predicted" if target is None else f"class {target}"
    return chosen, titles, 1.0, f"the logit of {about}"


def _of_targets(
    data: DataSet, batch: Batch, predicted: Array, target: str | None
) -> tuple[Array, list[str], float, str]:
    names = data.encodings.target_names or tuple(f"target {j}" for j in range(data.output_count))
    number = 0 if target is None else _number("target", target, names)
    scale = data.target_scale
    values, true = (scale.unscaled(part)[:, number] for part in (predicted, batch.y))
    titles = [
        (f"true {names[number]} {t:.6g}, " if data.has_labels else "") + f"predicted {v:.6g}"
        for v, t in zip(values, true, strict=True)
    ]
    unit = f"log(1 + {names[number]})" if scale.log[number] else names[number]
    outputs = np.full(len(batch.y), number, np.int32)
    return outputs, titles, float(1 / scale.scale[number]), f"{unit}, predicted"


def _number(what: str, text: str, names: Sequence[str]) -> int:
    """By name, or by number. Raises ConfigurationError."""
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise ConfigurationError(
        f"--target: expected a {what}, {one_line(', '.join(names))[:200]}, got {text!r}{did_you_mean(text, names)}"
    )


def _token(data: DataSet, text: str) -> int:
    if not data.vocabulary:
        return _number("token", text, tuple(map(str, range(data.output_count))))
    tokens = generation.encode(text.encode(), data.vocabulary)
    if len(tokens) != 1:
        raise ConfigurationError(
            f"--target: expected one token, got {text!r}, which is {len(tokens)}"
        )
    return tokens[0]
