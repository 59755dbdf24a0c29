"""A multilayer perceptron as one Numba kernel: the layers forward, the loss, and the layers backward, without a return to
Python between them, of which each costs as much as a short product.

What the layers work on is in a plan, int64, shape (1 + layers, WIDTH): addresses, and numbers. Row 0 is of the network,
row l of layer l = 1, 2, … The memory must outlive the plan. The work is cut into stages:

    l - 1                          forward through layer l
    layers                         softmax and cross-entropy
    layers + 1 + 2 (layers - l)    gradient of the parameters of layer l
    the one after that             gradient by the inputs of layer l > 1, with the slope of the layer before

What a stage does is in dense_kernels.py and activation_kernels.py, and compiled here.
"""

from functools import cache

import numpy as np

from lepton_mpi.kernels.compiling import Kernel, inlined, kernel
from lepton_mpi.kernels.intrinsics import vector_at
from lepton_mpi.layers.activation_kernels import (
    UNITS_PER_NUMBER,
    activate_drop_rows,
    activate_rows,
    slope_backward,
)
from lepton_mpi.layers.dense_kernels import (
    add_bias,
    add_bias_relu,
    multiply,
    multiply_left,
    multiply_right,
    relu_backward,
    sum_rows,
)
from lepton_mpi.layers.loss_kernels import softmax_cross_entropy

# Words of the network: the activation; the numbers 0, 1, …, and how many; scratch of ``product_right``, and its elements;
# numbers for dropout.
KIND, NUMBERS, NUMBER_COUNT, SCRATCH, SCRATCH_SIZE, RANDOM = range(6)
# Words of a layer: its inputs and outputs, as counts; parameters and their gradients; outputs, their slope, and the
# gradient by them, each of (rows, outputs).
INPUTS, OUTPUTS, WEIGHT, BIAS, GRAD_WEIGHT, GRAD_BIAS, OUT, SLOPE, GRAD_OUT = range(9)
WIDTH = 9


def stage_of_loss(layers: int) -> int:
    """Which comes after all layers."""
    return layers


def stage_of_gradient(layers: int, layer: int) -> int:
    """In which the gradient of the parameters of ``layer`` = 1, 2, … is filled."""
    return layers + 1 + 2 * (layers - layer)


def stage_count(layers: int) -> int:
    """Of all stages."""
    return stage_of_gradient(layers, 1) + 1


@inlined
def _matrix(like, address, rows, columns):
    return vector_at(like, address, rows * columns).reshape(rows, columns)


@inlined
def _forward(plan, like, inputs, places, rows, draw, layer, dropped, threaded, slopes, drops):
    """``inputs`` are those of the layer, of which the batch is rows ``places``."""
    network, own = plan[0], plan[layer]
    count, m, k = places.size, own[INPUTS], own[OUTPUTS]
    weight, bias = _matrix(like, own[WEIGHT], m, k), vector_at(like, own[BIAS], k)
    out = _matrix(like, own[OUT], count, k)
    multiply(inputs, places, weight, threaded, out)
    if layer == plan.shape[0] - 1:
        add_bias(bias, out)
    elif not slopes:
        add_bias_relu(bias, out)
    else:
        slope, kind = _matrix(like, own[SLOPE], count, k), network[KIND]
        if drops and dropped > 0:
            random_count = (k + UNITS_PER_NUMBER - 1) // UNITS_PER_NUMBER
            random = vector_at(places, network[RANDOM], random_count).view(np.uint64)
            key = draw, layer - 1, rows
            activate_drop_rows(kind, bias, *key, dropped, random, out, slope)
        else:
            activate_rows(kind, bias, out, slope)


@inlined
def _fill(plan, like, inputs, places, layer, first, last, threaded):
    own = plan[layer]
    m, k = own[INPUTS], own[OUTPUTS]
    grad_out = _matrix(like, own[GRAD_OUT], places.size, k)
    grad_weight = _matrix(like, own[GRAD_WEIGHT], m, k)
    multiply_left(inputs, places, grad_out, threaded, grad_weight, first, min(last, m))
    if last >= m:
        sum_rows(grad_out, vector_at(like, own[GRAD_BIAS], k))


@inlined
def _backward(plan, like, numbers, count, layer, threaded, slopes):
    network, own, before = plan[0], plan[layer], plan[layer - 1]
    m, k = own[INPUTS], own[OUTPUTS]
    grad_out = _matrix(like, own[GRAD_OUT], count, k)
    weight, grad_in = _matrix(like, own[WEIGHT], m, k), _matrix(like, before[GRAD_OUT], count, m)
    scratch = vector_at(like, network[SCRATCH], network[SCRATCH_SIZE])
    multiply_right(grad_out, weight, threaded, numbers, scratch, grad_in)
    if slopes:
        slope_backward(_matrix(like, before[SLOPE], count, m), grad_in)
    else:
        relu_backward(_matrix(like, before[OUT], count, m), grad_in)


@cache
def run_by(threaded: bool, slopes: bool, drops: bool) -> Kernel:
    """The kernel of a network; one for all of them would take twice as long to compile.

    threaded : whether matrix products are those of BLAS
    slopes : whether the layers have slopes: for another activation than ReLU, and for dropout
    drops : whether there is dropout
    """

    @kernel("UniTuple(f8, 2)(i8[:,::1], M, i8[::1], i4[::1], i8[::1], i8, i8, i8, i8, i8, i8)")
    def run(plan, inputs, places, labels, rows, draw, dropped, start, stop, first, last):
        """Do stages [start, stop) for a batch; return (loss sum, correct count), 0 without the loss's stage.

        inputs, places : shapes (any, features), (rows,)
            The batch is rows ``places`` of ``inputs``; ``threaded`` those are all of them.
        labels : int32, shape (rows,)
            For the stage of the loss.
        rows, draw, dropped
            Of dropout, see ``activate_drop_rows``; none with ``dropped`` 0.
        first, last
            Rows of weights whose gradient is filled, if not by BLAS; that of the bias is with the last rows.
        """
        layers, count = plan.shape[0] - 1, places.size
        numbers = vector_at(places, plan[0, NUMBERS], plan[0, NUMBER_COUNT])
        loss, correct = 0.0, 0.0
        for stage in range(start, stop):
            if stage == layers:
                output = plan[layers]
                out = _matrix(inputs, output[OUT], count, output[OUTPUTS])
                loss, correct = softmax_cross_entropy(out, labels)
                continue
            behind = stage - layers - 1
            layer = stage + 1 if stage < layers else layers - behind // 2
            if stage > layers and behind % 2:
                _backward(plan, inputs, numbers, count, layer, threaded, slopes)
                continue
            taken, taken_places = inputs, places
            if layer > 1:
                before = plan[layer - 1]
                taken = _matrix(inputs, before[OUT], count, before[OUTPUTS])
                taken_places = numbers[:count]
            if stage < layers:
                _forward(
                    plan,
                    inputs,
                    taken,
                    taken_places,
                    rows,
                    draw,
                    layer,
                    dropped,
                    threaded,
                    slopes,
                    drops,
                )
            else:
                _fill(plan, inputs, taken, taken_places, layer, first, last, threaded)
        return loss, correct

    return run
