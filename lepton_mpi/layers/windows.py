"""Where the windows of a convolution or a pooling lie: pure functions of shapes, which the kernels read as tables.

An image of H x W places with C channels is laid into a frame with zeros around it, so that no window leaves the frame. Row p
of a window product begins at element ``places[p]`` of the frame, and its element k is ``shifts[k]`` further on:

    out[targets[p] + n] = sum over k of frame[places[p] + shifts[k]] * weight[k, n]

The gradient by x is such a product, too, over the frame of ``grad_out``. With stride s the places of x fall into s x s phases
by their remainder; the places of one phase meet the same taps of the window, so each phase is a product of its own.

    stride 2, 3 taps: o = (i + padding - tap) / 2    even i + padding: taps 0 and 2    odd: tap 1
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.errors import ConfigurationError

Whole = NDArray[np.int64]
Pair = tuple[int, int]
# Elements of a frame's images that are worked on together, which stay in the second-level cache.
_TOGETHER = 32_768
_PLACES_MIN = 256


class Window(NamedTuple):
    """What slides over an image: of each axis the taps, the step, the zeros before and after, the distance of the taps."""

    size: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    def span(self, axis: int) -> int:
        """Places from the first tap to the last."""
        return (self.size[axis] - 1) * self.dilation[axis] + 1

    def out(self, image: Pair) -> Pair:
        """Windows along each axis. Raises ConfigurationError for an image that is smaller than the window."""
        room = [image[axis] + sum(self.padding[axis]) - self.span(axis) for axis in (0, 1)]
        if min(room) < 0:
            raise ConfigurationError(
                f"a window of {self.size}: expected an image of at least {self.span(0)}x{self.span(1)} with its padding, "
                f"got {image[0]}x{image[1]}"
            )
        return room[0] // self.stride[0] + 1, room[1] // self.stride[1] + 1


def square(size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
    """The same along both axes.

    >>> square(3, stride=2, padding=1).out((32, 32))
    (16, 16)
    """
    return Window((size, size), (stride, stride), ((padding, padding),) * 2, (dilation, dilation))


def along(size: int, stride: int = 1, padding: Pair = (0, 0), dilation: int = 1) -> Window:
    """Over a sequence, an image of height 1; with ``padding = (dilation * (size - 1), 0)`` no output sees what comes later.

    >>> along(3, padding=(4, 0), dilation=2).out((1, 10))
    (1, 10)
    """
    return Window((1, size), (1, stride), ((0, 0), padding), (1, dilation))


class Tables(NamedTuple):
    """See the module. All are int64.

    Attributes
    ----------
    frame : shape (8,)
        Height, width and channels of the image; rows before and columns left of it in its frame; the frame's height and width;
        images that are worked on together.
    phases : shape (phases, 4)
        Of each the first of its places, places of one image, the first of its shifts, their count.
    places, targets, shifts
        Places and targets of all images that are worked on together.
    taps : shape (taps,)
        Which tap of the window each shift, or each run of channels of shifts, belongs to; of all phases.
    """

    frame: Whole
    phases: Whole
    places: Whole
    targets: Whole
    shifts: Whole
    taps: Whole

    @property
    def frame_size(self) -> int:
        """Elements of all frames that are worked on together; 0 if the images need none."""
        height, width, channels, _, _, frame_height, frame_width, images = self.frame.tolist()
        if (height, width) == (frame_height, frame_width):
            return 0
        return frame_height * frame_width * channels * images


@cache
def forward_tables(
    window: Window, image: Pair, channels: int, in_group: int, outputs: int
) -> Tables:
    """Of ``out`` from x: ``in_group`` channels of a place meet each output."""
    (top, bottom), (left, right) = window.padding
    height, width = image[0] + top + bottom, image[1] + left + right
    rows, columns = window.out(image)
    places = _grid(
        np.arange(rows) * window.stride[0], np.arange(columns) * window.stride[1], width, channels
    )
    down, across = (np.arange(window.size[axis]) * window.dilation[axis] for axis in (0, 1))
    taps = _grid(down, across, width, channels)
    shifts = (taps[:, None] + np.arange(in_group)).reshape(-1)
    images = _images_together(height * width * channels, len(places))
    return Tables(
        np.array([*image, channels, top, left, height, width, images]),
        np.array([[0, len(places), 0, len(shifts)]]),
        _of_images(places, images, height * width * channels),
        _of_images(np.arange(len(places)) * outputs, images, len(places) * outputs),
        shifts,
        np.arange(len(taps)),
    )


@cache
def backward_tables(
    window: Window, image: Pair, channels: int, in_group: int, outputs: int
) -> Tables:
    """Of ``grad_x`` from ``grad_out``: ``in_group`` outputs of a place meet each of the ``channels``."""
    out = window.out(image)
    axes = [_phases_of_axis(window, axis, image[axis], out[axis]) for axis in (0, 1)]
    before = [(window.span(axis) - 1) // window.stride[axis] for axis in (0, 1)]
    size = [
        before[axis] + max(out[axis], *(phase.first.max(initial=0) + 1 for phase in axes[axis]))
        for axis in (0, 1)
    ]
    width = size[1]
    places: list[Whole] = []
    shifts: list[Whole] = []
    targets, taps, phases = [], [], []
    images = _images_together(size[0] * width * outputs, image[0] * image[1])
    for down in axes[0]:
        for across in axes[1]:
            first = _grid(down.first + before[0], across.first + before[1], width, outputs)
            begun = sum(each.size for each in places), sum(each.size for each in shifts)
            taps.append(_grid(down.taps, across.taps, window.size[1], 1))
            back = _grid(down.back, across.back, width, outputs)
            shifts.append((np.arange(in_group) - back[:, None]).reshape(-1))
            phases.append([begun[0], len(first), begun[1], len(shifts[-1])])
            places.append(_of_images(first, images, size[0] * width * outputs))
            at = _grid(down.own, across.own, image[1], channels)
            targets.append(_of_images(at, images, image[0] * image[1] * channels))
    frame = np.array([*out, outputs, *before, *size, images])
    return Tables(frame, np.array(phases), *map(np.concatenate, (places, targets, shifts, taps)))


class _Phase(NamedTuple):
    """Places ``own`` of an axis with the same taps; the window at place ``first[i] - back[j]`` has ``own[i]`` at ``taps[j]``."""

    own: Whole
    first: Whole
    taps: Whole
    back: Whole


def _phases_of_axis(window: Window, axis: int, length: int, out: int) -> list[_Phase]:
    stride, before = window.stride[axis], window.padding[axis][0]
    taps, own = np.arange(window.size[axis]), np.arange(length)
    distance, at = taps * window.dilation[axis], own + before
    found = []
    for phase in range(min(stride, length)):
        remainder = (phase + before) % stride
        mine, meet = at % stride == remainder, distance % stride == remainder
        found.append(_Phase(own[mine], at[mine] // stride, taps[meet], distance[meet] // stride))
    return found


def _grid(down: Whole, across: Whole, width: int, channels: int) -> Whole:
    """Elements at which places of a grid begin, row by row."""
    return ((down[:, None] * width + across) * channels).reshape(-1).astype(np.int64)


def _of_images(places: Whole, images: int, size: int) -> Whole:
    return (np.arange(images)[:, None] * size + places).reshape(-1)


def _images_together(size: int, places: int) -> int:
    """As many as stay in the cache, and at least so many that a product is worth its panel of weights."""
    return max(1, _TOGETHER // max(1, size), _PLACES_MIN // max(1, places))
