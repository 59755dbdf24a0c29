"""``Layer``: what networks are made of. A layer is one file: its formula, its kernels, its NumPy twin.

A layer says which parameters it has, what shape comes out, and which memory it works in; it never allocates, and never sees
a rank, a file or an optimizer. A planner (``plan.py``) calls these methods once per row count and gives every array an
address in one arena; a network (``models/network.py``) walks the list of calls in each step.

    forward    reads  parameters, x              fills  out, and what is kept
    backward   reads  parameters, grad_out       fills  grad (of the parameters) and grad_x
               and what is kept; x and out only if the layer says that it needs them

All gradients are of the loss summed over the rows of a batch. What has to be filled is filled in full: it holds anything
before. Random numbers are a function of ``When.draw``, ``Arrays.number`` and the numbers of the rows, never of a generator
with a state: then weights do not depend on the number of ranks, and a second forward pass (recomputation) repeats its bits.

``x`` is described by ``Input``: of the first layer an array of the batch, of the others numbers in the shape that the
layer before gives for one row.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.batch import Input
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.layers.initial import Initial, glorot_uniform

Array = NDArray[Any]
Shape = tuple[int, ...]
# Loss, and rows (or tokens) predicted correctly or NaN, both summed over a batch.
Sums = tuple[float, float]


class Parameter(NamedTuple):
    """An array that is learned.

    Attributes
    ----------
    shape : tuple of int
    initial : Initial
        Fills it before the first step.
    averaged : float
        0 for what the optimizer trains by its gradient. Else ``backward`` fills the gradient with sums over rows, and a step
        moves the parameter by this share of the way to the mean over all rows of the step: a running average that is the
        same on any split, since its sum takes the way of all gradients. For running statistics of batch normalisation.
    decays : bool or None
        Whether weight decay acts: True of a weight, False of a bias or of a norm's scale. None: if of two or more dimensions.
    outputs_first : bool
        Whether the first dimension of a weight is that of its outputs, as of a table of rows, and not the last.
    """

    shape: Shape
    initial: Initial = glorot_uniform
    averaged: float = 0.0
    decays: bool | None = None
    outputs_first: bool = False

    @property
    def is_decayed(self) -> bool:
        """Whether weight decay acts."""
        return not self.averaged and (len(self.shape) >= 2 if self.decays is None else self.decays)


class Memory(NamedTuple):
    """An array that a layer works in, ``Arrays.memory[name]``.

    Attributes
    ----------
    shape : tuple of int
        Of the whole array, rows included.
    lives : {"kept", "scratch", "backward", "grad_x", "plan"}
        kept: from ``forward`` to ``backward``. scratch: within a call, forward or backward. backward: within ``backward``.
        grad_x: the same, and only where ``grad_x`` is wanted. plan: from call to call of the same row count, zeros before
        the first, such as a cache of keys and values; nothing else is in memory between two batches.
    dtype : NumPy type
        None for that of the parameters.
    rounds : bool
        Whether what is kept may be rounded to bfloat16 between the passes, if a run asks for it: true of activations and slopes of
        the parameters' type, one for each number of x or out, and not of statistics.
    """

    shape: Shape
    lives: Literal["kept", "scratch", "backward", "grad_x", "plan"]
    dtype: type[np.generic] | None = None
    rounds: bool = False


class When(NamedTuple):
    """What is the same for all layers in a pass over a batch.

    Attributes
    ----------
    training : bool
        False in evaluation and prediction, where there is no ``backward``.
    draw : int
        64 random bits of the step, from -2**63 up.
    rows : int64, shape (rows,), or None
        The numbers of the rows in their data set; None outside of training.
    """

    training: bool
    draw: int = 0
    rows: NDArray[np.int64] | None = None


def unread(shape: Shape) -> Array:
    """Stands for an array of this shape that a layer does not need: it has no memory, and no kernel takes it for one."""
    return np.broadcast_to(np.zeros(()), shape)


_NOTHING = unread(())


class Arrays:
    """The arrays of one call, at addresses that stay from step to step. All have the rows in front.

    Attributes
    ----------
    x, xs
        What comes in; of a join all that comes in, in order. In ``backward`` ``unread``, a shape, unless it is needed.
    places : int64, shape (rows,), or None
        If the layer has ``reads_rows``: row i of the batch is row ``places[i]`` of ``x``. None: they are all of x, in order.
    out
        To be filled by ``forward``; in ``backward`` ``unread`` unless it is needed.
    grad_out
        The gradient by ``out``. It must not be changed, unless it is ``grad_x``.
    grad_x, grad_xs
        To be filled by ``backward``; None where nobody wants it.
    memory : dict of str to array
        What ``Layer.memory`` asked for.
    number : int
        Of the layer in its network, for random numbers of its own.
    """

    __slots__ = (
        "grad_out",
        "grad_x",
        "grad_xs",
        "memory",
        "number",
        "out",
        "places",
        "x",
        "xs",
    )

    def __init__(self, xs: tuple[Array, ...], out: Array, number: int) -> None:
        self.xs, self.x, self.out, self.number = xs, xs[0], out, number
        self.places: NDArray[np.int64] | None = None
        self.grad_out: Array = _NOTHING
        self.grad_xs: tuple[Array | None, ...] = ()
        self.grad_x: Array | None = None
        self.memory: dict[str, Array] = {}


@runtime_checkable
class Layer(Protocol):
    """Inherit from it: what is said below is the default, and most layers say little else.

    Attributes
    ----------
    needs_x, needs_out : bool
        Whether ``backward`` reads what came in or what came out, which are then kept until it has run.
    in_place : bool
        Whether ``out`` may be ``x`` itself, and ``grad_x`` ``grad_out``: true of what works element by element.
    reads_rows : bool
        Whether rows are read where they lie in a table, by ``Arrays.places``.
    mixes_rows : bool
        Whether a row's result depends on the other rows of its micro-batch, as in batch normalisation.
    kernels : sequence of Kernel
        Those that are called, so that a run compiles them, and no others, before its first step.
    """

    needs_x: bool = True
    needs_out: bool = False
    in_place: bool = False
    reads_rows: bool = False
    mixes_rows: bool = False
    kernels: Sequence[Kernel] = ()

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        """By name. Raises ConfigurationError for an ``x`` that the layer cannot take."""
        return {}

    def freeze(self, names: Collection[str]) -> None:
        """These of its parameters, by its own names, stay as they are: for a layer that then computes something else.

        Raises ConfigurationError for parameters that can only stay together.
        """
        return

    def out_shape(self, x: Input) -> Shape:
        """Of one row of what comes out, which are numbers."""
        ...

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        """What it works in beside ``x`` and ``out``, for a batch of so many rows."""
        return {}

    def before_relu(self) -> "Layer | None":
        """The layer without the ReLU at its end whose mask ``backward`` makes of ``x``; None if there is none.

        Where ``x`` is rounded between the passes the two are apart: a mask made of the ReLU's own output does not change.
        """
        return None

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        """Fill ``at.out``; ``p`` are the parameters by name."""
        ...

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        """Fill every array of ``grad``, the gradients of the parameters, and ``at.grad_x`` if it is not None."""
        ...


@runtime_checkable
class Synchronised(Protocol):
    """What a layer has beside ``Layer`` if its result depends on all micro-batches of a step: what each tells of itself.

    In training ``forward`` and ``backward`` come behind a meeting of all micro-batches: each fills a part, and what the parts give
    together is in ``Arrays.memory["whole"]``, float64, ``part_size`` long, kept. Scratch of a call is as ``tell`` has left it.
    """

    def part_size(self, x: Input) -> int:
        """Numbers of a part, forward or backward; the same for any number of rows."""
        ...

    def tell_forward(self, p: Mapping[str, Array], at: Arrays, when: When, part: Array) -> None:
        """Fill ``part`` before ``forward``, float64, which is zeros."""
        ...

    def tell_backward(self, p: Mapping[str, Array], at: Arrays, when: When, part: Array) -> None:
        """The same before ``backward``."""
        ...

    def merge_forward(self, parts: Array, whole: Array) -> None:
        """Fill ``whole`` from the parts of all micro-batches, in order, zeros of an empty one. Shapes (micro-batches, size), (size,)."""
        ...

    def merge_backward(self, parts: Array, whole: Array) -> None:
        """The same before ``backward``."""
        ...


@runtime_checkable
class Join(Protocol):
    """Makes one array of several, ``Arrays.xs``, without parameters: where the branches of a network meet.

    Attributes
    ----------
    needs_x : bool
        As in ``Layer``.
    kernels : sequence of Kernel
        As in ``Layer``.
    passes_gradient : bool
        Whether the gradient by each of ``xs`` is ``grad_out`` itself, as in a sum; ``backward`` is then not called.
    """

    needs_x: bool = False
    kernels: Sequence[Kernel] = ()
    passes_gradient: bool = False

    def out_shape(self, xs: tuple[Input, ...]) -> Shape:
        """Of one row. Raises ConfigurationError for shapes that do not fit together."""
        ...

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        """Fill ``at.out``."""
        ...

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        """Fill those of ``at.grad_xs`` that are not None."""
        return


@runtime_checkable
class Head(Protocol):
    """The end of a network: the loss, and what the outputs mean.

    Attributes
    ----------
    task : str
        Name in the registry of tasks.
    in_place : bool
        Whether ``grad_x`` may be ``x`` itself.
    tied : mapping of str to str
        Parameters that are those of other layers: its own names to the network's.
    kernels : sequence of Kernel
        As in ``Layer``, of training and evaluation.
    """

    task: str
    in_place: bool = False
    tied: Mapping[str, str] = {}
    kernels: Sequence[Kernel] = ()

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        """As of a layer: a last product may be one with its loss, so that no array has all outputs at once."""
        return {}

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        """As of a layer; forward and backward are one call, ``loss_and_gradient``."""
        return {}

    def loss_and_gradient(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], y: Array
    ) -> Sums:
        """Fill ``at.grad_x`` and every array of ``grad``; return loss and correct count, summed over the rows of ``y``."""
        ...

    def evaluate(self, p: Mapping[str, Array], at: Arrays, y: Array, predicted: Array) -> float:
        """Fill ``predicted`` as the task wants it; return the summed loss. May change ``at.x``."""
        ...

    def predict(self, p: Mapping[str, Array], at: Arrays, outputs: Array) -> None:
        """Fill ``outputs``, shape (rows, outputs): probabilities, or predicted targets. May change ``at.x``."""
        ...
