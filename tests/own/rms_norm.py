"""A network with a layer of one's own: normalisation by the root mean square (Zhang and Sennrich, NeurIPS 2019)."""

from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.layers.compose import Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import Layer, Memory, Parameter
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.models.network import Network


class RmsNorm(Layer):
    def parameters(self, x):
        return {"scale": Parameter(x.shape[-1:], lambda array, seed, index: array.fill(1))}

    def out_shape(self, x):
        return x.shape

    def memory(self, rows, x):
        return {"inverse": Memory((rows, 1), "kept")}

    def forward(self, p, at, when):
        at.memory["inverse"][:, 0] = 1 / np.sqrt((at.x**2).mean(axis=1) + 1e-6)
        np.multiply(at.x * at.memory["inverse"], p["scale"], out=at.out)

    def backward(self, p, at, grad, when):
        normal, scaled = at.x * at.memory["inverse"], at.grad_out * p["scale"]
        grad["scale"][:] = (at.grad_out * normal).sum(axis=0)
        if at.grad_x is not None:  # nothing before it is trained
            mean = (scaled * normal).mean(axis=1, keepdims=True)
            at.grad_x[:] = at.memory["inverse"] * (scaled - normal * mean)


def network(feature_shape, output_count):
    """Named by ``--model tests/own/rms_norm.py:network``."""
    body = Sequential([Dense(64, "gelu"), RmsNorm(), Dense(output_count)])
    return Network("rms", body, {"x": Input("numbers", (prod(feature_shape),))}, CrossEntropy())
