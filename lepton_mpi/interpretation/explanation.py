"""Methods carried out on a question, and what they found as sections of a page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.interpretation import pictures
from lepton_mpi.interpretation.attention_maps import attention_layers, attention_maps
from lepton_mpi.interpretation.columns import has_columns, raw_numbers
from lepton_mpi.interpretation.embedded import Baseline
from lepton_mpi.interpretation.grad_cam import default_layer, grad_cam, layers_of
from lepton_mpi.interpretation.gradients import Attribution, Gradients, Integrated
from lepton_mpi.interpretation.importance import Importances
from lepton_mpi.interpretation.page import Picture, Section
from lepton_mpi.interpretation.question import Question
from lepton_mpi.interpretation.views import Shown, draw_rows
from lepton_mpi.layers.layer import Array
from lepton_mpi.models.as_network import as_network
from lepton_mpi.models.model import Model
from lepton_mpi.models.network import Network
from lepton_mpi.run.trained import Trained

Method = Literal["saliency", "integrated", "grad-cam", "attention", "importance"]
METHODS: tuple[Method, ...] = get_args(Method)
_NEEDS = {
    "saliency": "a model that gives gradients by its input",
    "integrated": "a model that gives gradients by its input",
    "grad-cam": "a network with convolutions",
    "attention": "a network with attention, such as gpt",
    "importance": "rows of columns with labels, such as a table",
}
# Points of a path, if nobody has chosen: doubled until sums are close enough.
STEPS, STEPS_MAX = 32, 1024
# Bars of the picture of importance.
_BARS_MAX = 30


@dataclass(frozen=True)
class How:
    """How methods are carried out.

    Attributes
    ----------
    steps : int or None
        Points of the path of integrated gradients; None: as many as meet the tolerance, up to ``STEPS_MAX``.
    baseline, tolerance
        Of the same; the tolerance is a share of the sizes of a row's attributions.
    means : mapping of str to array
        Of the inputs of numbers, for the baseline "mean".
    layer : str or None
        Of Grad-CAM.
    progress : callable
        To be called now and then.
    """

    steps: int | None
    baseline: Baseline
    tolerance: float
    means: Mapping[str, Array]
    layer: str | None
    progress: Callable[[], None]


def methods_for(found: Trained) -> list[Method]:
    """Those that apply to a model and its data."""
    methods: list[Method] = []
    network = network_of(found.model, found)
    if network is not None:
        methods += ["saliency", "integrated"]
        methods += ["grad-cam"] if layers_of(network) else []
        methods += ["attention"] if attention_layers(network) else []
    if has_columns(found.data) and found.data.has_labels and found.model.evaluates:
        methods += ["importance"]
    return methods


def choose(found: Trained, asked: tuple[str, ...], importance: bool) -> list[Method]:
    """The methods to carry out. Raises ConfigurationError for one that does not apply, with those that do."""
    known = methods_for(found)
    more = ("importance",) if importance and "importance" not in asked else ()
    if not asked:
        asked = tuple(method for method in known if method != "importance")
    for method in (*asked, *more):
        if method not in known:
            raise ConfigurationError(
                f"--method {method}: expected {_NEEDS[method]}, got {found.model}, {found.data.inputs_text}; "
                f"for it there are {', '.join(known) or 'none'}"
            )
    if not (*asked, *more):
        as_network(found.model, found.parameters)  # which says why
    return [method for method in METHODS if method in (*asked, *more)]


def network_of(model: Model, found: Trained) -> Network | None:
    """The model's equal; None if it has none."""
    try:
        return as_network(model, found.parameters)[0]
    except ConfigurationError:
        return None


def explain_rows(question: Question, methods: list[Method], how: How) -> Section:
    """By gradients and by Grad-CAM."""
    shown: list[Shown] = []
    lines = [f"the score is {question.about}"]
    if "saliency" in methods or "integrated" in methods:
        gradients = Gradients(question.network, question.parameters)
        if "integrated" in methods:
            found, steps = _integrated(question, gradients, how)
            lines.append(_completeness(found, steps, question, how))
            attribution = _scaled(found.attribution, question.unit)
            shown.append(Shown("integrated gradients", "signed", attribution))
        if "saliency" in methods:
            sizes = gradients.saliency(question.inputs, question.outputs)
            shown.append(Shown("saliency", "sizes", _scaled(sizes, question.unit)))
            lines.append("saliency: sizes of the gradients by the normalised numbers")
    if "grad-cam" in methods:
        layer = how.layer or default_layer(question.network)
        given = question.inputs, question.outputs, layer
        maps = grad_cam(question.network, question.parameters, *given)
        lines.append(f"Grad-CAM at {layer}, a map of {'x'.join(map(str, maps.shape[1:]))}")
        shown.append(Shown("Grad-CAM", "over", Attribution({"": maps}, {})))
    how.progress()
    return Section("Rows", lines, draw_rows(question, shown))


def explain_attention(question: Question) -> Section:
    """Maps of every row, layer and head."""
    maps = attention_maps(question.network, question.parameters, question.inputs, question.length)
    found = []
    for row, title in enumerate(question.titles):
        of_layers = [(name.removesuffix("/body/heads"), each[row]) for name, each in maps.items()]
        tokens = question.token_texts(row)
        png = pictures.attention(title, of_layers, tokens)
        found.append(Picture(f"attention-{row}", f"{title}: attention of each layer and head", png))
    heads = sum(each.shape[1] for each in maps.values())
    line = f"attention: {len(maps)} layers, {heads} heads; a line is a position, and sums to 1 over what it reads"
    return Section("Attention", [line], found)


def importance_section(found: Importances, data: DataSet) -> Section:
    """The ranked table, and bars of the first."""
    first = found.columns[:_BARS_MAX]
    deviations = np.array([one.deviation for one in first])
    drops = np.array([one.mean for one in first])
    what = f"drop of {found.score}, mean of {found.repeats}"
    png = pictures.bars(
        f"{data.name}: importance of columns",
        [one.name for one in first],
        [(what, drops, deviations)],
    )
    table = [("column", f"drop of {found.score}", "deviation")]
    table += [(one.name, f"{one.mean:.5f}", f"{one.deviation:.5f}") for one in found.columns]
    line = (
        f"permutation importance: {found.score} {found.base:.5f} on {found.row_count} rows; its drop when a column is permuted, mean "
        f"and standard deviation of {found.repeats} repeats"
    )
    picture = Picture("importance", f"{what}, and its deviation", png)
    return Section("Permutation importance", [line], [picture], table)


def _integrated(question: Question, gradients: Gradients, how: How) -> tuple[Integrated, int]:
    """And the points of the path."""
    given = question.inputs, question.outputs, _baseline(question, how), how.baseline
    steps = how.steps or STEPS
    while True:
        found = gradients.integrated(*given, steps, how.progress)
        if how.steps or steps >= STEPS_MAX or _shares(found).max() <= how.tolerance:
            return found, steps
        steps *= 2


def _shares(found: Integrated) -> Array:
    """Gaps as shares of the sizes of a row's attributions, (rows,)."""
    return found.gaps / np.where(found.sizes == 0, 1, found.sizes)


def _baseline(question: Question, how: How) -> dict[str, Array]:
    """Of each input of numbers, as the network has it."""
    found, specs = {}, question.network.inputs
    for own, name in zip(specs, question.names, strict=True):
        if specs[own].kind != "numbers":
            continue
        row = np.zeros(specs[own].size)
        if how.baseline == "mean":
            row = how.means[name]
        elif how.baseline == "raw":
            zero = raw_numbers(question.data, name, row.reshape(1, -1))[0]
            one = raw_numbers(question.data, name, np.ones((1, row.size)))[0]
            row = -zero / (one - zero)
        found[own] = row.reshape(specs[own].shape)
    return found


def _completeness(found: Integrated, steps: int, question: Question, how: How) -> str:
    """How far sums are off, and whether that is too far."""
    shares = _shares(found)
    worst = int(shares.argmax())
    line = (
        f"integrated gradients: baseline {how.baseline}, {steps} steps; sums are off score(x) - score(baseline) by at most "
        f"{found.gaps.max() * question.unit:.2g}, {shares[worst]:.2%} of the sizes of a row's attributions, tolerance "
        f"{how.tolerance:.2%}"
    )
    if shares[worst] > how.tolerance:
        line += (
            f": above it in {question.titles[worst].partition(':')[0]}; more --steps come closer"
        )
    return line


def _scaled(found: Attribution, unit: float) -> Attribution:
    numbers = {name: values * unit for name, values in found.numbers.items()}
    return Attribution(numbers, {name: values * unit for name, values in found.codes.items()})
