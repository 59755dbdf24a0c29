"""Multilayer perceptron: dense layers with ReLU between them, softmax cross-entropy at the end."""

from itertools import pairwise

import numpy as np

from lepton_mpi.models import NOTHING_AHEAD, Batch, kernels


class Mlp:
    """See ``lepton_mpi.models`` for the contract.

    Parameters
    ----------
    widths
        Features, hidden widths, classes; at least two numbers. (784, 128, 10) has one hidden layer.
    threaded
        Whether matrix products shall use the threads of BLAS.
    """

    name = "mlp"

    def __init__(self, widths: tuple[int, ...], threaded: bool = False) -> None:
        self.widths, self.threaded = widths, threaded
        self.shapes = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            self.shapes |= {
                f"layer{layer}/weight": (inputs, outputs),
                f"layer{layer}/bias": (outputs,),
            }
        self._scratch: dict[tuple[int, np.dtype], list[np.ndarray]] = {}

    def __str__(self) -> str:
        return f"mlp {'-'.join(map(str, self.widths))}"

    def loss_and_gradient(self, parameters, batch: Batch, gradient) -> tuple[float, int]:
        """Summed cross-entropy and number of rows classified correctly."""
        outputs = self._forward(parameters, batch.x)
        loss, correct = kernels.softmax_cross_entropy(outputs[-1], batch.y)
        grad_output = outputs[-1]
        for layer in reversed(range(len(self.widths) - 1)):
            weight, bias = f"layer{layer}/weight", f"layer{layer}/bias"
            inputs = outputs[layer - 1] if layer else _flat(batch.x)
            # The first layer's gradient comes last, and then the next batch is read.
            ahead = NOTHING_AHEAD if layer else batch.ahead
            kernels.dense_gradient(
                inputs, grad_output, self.threaded, ahead, gradient[weight], gradient[bias]
            )
            gradient.done(bias)
            gradient.done(weight)
            if layer:
                # The gradient takes the place of scratch that is as long as the layer's inputs.
                grad_input = self._buffers(len(batch.x), inputs.dtype)[len(outputs) + layer - 1]
                kernels.dense_relu_backward(grad_output, parameters[weight], inputs, grad_input)
                grad_output = grad_input
        return loss, int(correct)

    def evaluate(self, parameters, batch: Batch, predicted) -> float:
        """Predicted classes and summed cross-entropy."""
        return kernels.softmax_predict(self._forward(parameters, batch.x)[-1], batch.y, predicted)

    def _forward(self, parameters, x: np.ndarray) -> list[np.ndarray]:
        """Outputs of all layers, each of shape (rows, width)."""
        layers = len(self.widths) - 1
        outputs = self._buffers(len(x), x.dtype)[:layers]
        inputs = _flat(x)
        for layer, out in enumerate(outputs):
            kernel = kernels.dense if layer == layers - 1 else kernels.dense_relu
            weight, bias = parameters[f"layer{layer}/weight"], parameters[f"layer{layer}/bias"]
            kernel(inputs, weight, bias, self.threaded, out)
            inputs = out
        return outputs

    def _buffers(self, rows: int, dtype: np.dtype) -> list[np.ndarray]:
        """Outputs of every layer and gradients of every hidden layer, made once per batch length."""
        if (rows, dtype) not in self._scratch:
            widths = [*self.widths[1:], *self.widths[1:-1]]
            self._scratch[rows, dtype] = [np.empty((rows, width), dtype) for width in widths]
        return self._scratch[rows, dtype]


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)
