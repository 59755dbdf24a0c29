"""Saliency and integrated gradients: what of a row decides the score of an output.

    saliency      |d score / d x|
    integrated    (x - b) * mean over the path from b to x of d score / d x

Integrated gradients are complete: their sum is score(x) - score(b), but for the error of the rule that takes the mean, which is
Gauss and Legendre's. The difference is reported. Codes are followed from a vector that says nothing to that of the embedding.
Sources: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2014; Sundararajan, Taly, Yan, "Axiomatic attribution for
deep networks", ICML 2017.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lepton_mpi.interpretation import embedded as codes_of
from lepton_mpi.interpretation.embedded import Baseline, Embedded
from lepton_mpi.interpretation.scored import Found, Scored
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.network import Network


@dataclass(frozen=True)
class Attribution:
    """What belongs to the rows of each input.

    Attributes
    ----------
    numbers : dict of str to array
        Of inputs of numbers: float64, shape (rows, …) of the input.
    codes : dict of str to array
        Of layers that look up codes, by their names: float64, shape (rows, parts), see ``embedded.py``.
    """

    numbers: dict[str, Array]
    codes: dict[str, Array]


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients.

    Attributes
    ----------
    attribution : Attribution
    scores, baseline_scores : float64, shape (rows,)
    """

    attribution: Attribution
    scores: Array
    baseline_scores: Array

    @property
    def sums(self) -> Array:
        """Of all attributions of each row, float64, shape (rows,)."""
        return np.sum([part.reshape(len(part), -1).sum(axis=1) for part in self._parts], axis=0)

    @property
    def gaps(self) -> Array:
        """By how much the sums are off ``scores - baseline_scores``."""
        return np.abs(self.sums - (self.scores - self.baseline_scores))

    @property
    def sizes(self) -> Array:
        """What gaps are compared with: the sum of the sizes of all attributions of each row."""
        parts = [np.abs(part).reshape(len(part), -1).sum(axis=1) for part in self._parts]
        return np.sum(parts, axis=0)

    @property
    def _parts(self) -> list[Array]:
        return [*self.attribution.numbers.values(), *self.attribution.codes.values()]


class Gradients:
    """A network with gradients by all that its rows say.

    Parameters
    ----------
    network : Network
    parameters : mapping of str to array
    """

    def __init__(self, network: Network, parameters: Mapping[str, Array]) -> None:
        self._parameters, self._inputs = parameters, dict(network.graph.inputs)
        self.embedded = codes_of.embedded_of(network)
        kinds = {name: network.inputs[name].kind for name in self._inputs}
        self._numbers = {n: v for n, v in self._inputs.items() if kinds[n] == "numbers"}
        wanted = [*self._numbers.values(), *(each.value for each in self.embedded)]
        self.scored = Scored(network, parameters, wanted)

    def saliency(self, inputs: tuple[Array, ...], outputs: Array) -> Attribution:
        """Sizes of the gradients; of codes that are side by side the length of those of each part, of others none."""
        found = self.scored.at(inputs, outputs)
        numbers = {
            name: np.abs(found.gradients[v].astype(np.float64)) for name, v in self._numbers.items()
        }
        codes = {
            each.node.name: codes_of.norms(found.gradients[each.value], self._parts(each, inputs))
            for each in self.embedded
            if not each.is_summed
        }
        return Attribution(numbers, codes)

    def integrated(
        self,
        inputs: tuple[Array, ...],
        outputs: Array,
        baseline: Mapping[str, Array],
        kind: Baseline = "zero",
        steps: int = 32,
        progress: Callable[[], None] = lambda: None,
    ) -> Integrated:
        """Integrated gradients of every row.

        Parameters
        ----------
        inputs, outputs
            As of ``Scored.at``.
        baseline
            Of each input of numbers the row that the path begins with, shape (…) of a row.
        kind
            What codes begin with, see ``embedded.baseline_of``.
        steps
            Points of the path.
        progress
            Called before each of them.
        """
        whole = self.scored.at(inputs, outputs)
        ends = {
            v: (baseline[n].astype(inputs[v].dtype), inputs[v]) for n, v in self._numbers.items()
        }
        parts = {each.value: self._parts(each, inputs) for each in self.embedded}
        begins = {each.value: self._begins(each, kind, inputs) for each in self.embedded}
        for each in self.embedded:
            value = whole.values[each.value]
            start = [
                np.broadcast_to(b, p.shape)
                for b, p in zip(begins[each.value], parts[each.value], strict=True)
            ]
            ends[each.value] = codes_of.together(each, start, value.shape), value
        slopes = {value: np.zeros(end.shape) for value, (_, end) in ends.items()}
        places, weights = np.polynomial.legendre.leggauss(steps)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            progress()
            found = self._at(inputs, outputs, ends, place)
            for number, total in slopes.items():
                total += weight * found.gradients[number]
        first = self._at(inputs, outputs, ends, 0.0)
        numbers = {
            name: slopes[v] * (inputs[v].astype(np.float64) - ends[v][0])
            for name, v in self._numbers.items()
        }
        codes = {
            e.node.name: codes_of.by_part(e, slopes[e.value], parts[e.value], begins[e.value])
            for e in self.embedded
        }
        return Integrated(Attribution(numbers, codes), whole.scores, first.scores)

    def _at(
        self,
        inputs: tuple[Array, ...],
        outputs: Array,
        ends: Mapping[int, tuple[Array, Array]],
        place: float,
    ) -> Found:
        """The pass at a place of the path, from 0 to 1."""
        points = {
            v: (begin + place * (end - begin)).astype(end.dtype) for v, (begin, end) in ends.items()
        }
        given = tuple(points.get(value, x) for value, x in enumerate(inputs))
        replaced = {each.value: points[each.value] for each in self.embedded}
        return self.scored.at(given, outputs, replaced)

    def _parts(self, each: Embedded, inputs: tuple[Array, ...]) -> list[Array]:
        return codes_of.parts_of(each, self._parameters, inputs[self._inputs[each.input]])

    def _begins(self, each: Embedded, kind: Baseline, inputs: tuple[Array, ...]) -> list[Array]:
        codes = inputs[self._inputs[each.input]]
        count = codes.reshape(len(codes), -1).shape[1]
        return codes_of.baseline_of(each, self._parameters, kind, count)
