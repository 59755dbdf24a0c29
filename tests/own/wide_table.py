"""Numbers with weights, and logits for each value of each category."""

import numpy as np

from lepton_mpi.batch import Input

VALUES = (3, 4)


class WideTable:
    """Softmax over what all columns say."""

    def __init__(self, feature_shape, output_count):
        categories = Input("categories", (len(VALUES),), VALUES)
        self.inputs = {"x": Input("numbers", feature_shape), "categories": categories}
        self.shapes = {"w": (*feature_shape, output_count)}
        self.shapes |= {f"category{j}": (n, output_count) for j, n in enumerate(VALUES)}

    def loss_and_gradient(self, parameters, batch, gradient):
        """Cross-entropy."""
        p, loss = self._softmax(parameters, batch)
        p[np.arange(len(p)), batch.y] -= 1
        gradient["w"][:] = batch.inputs["x"].T @ p
        for j, codes in enumerate(batch.inputs["categories"].T):
            gradient[f"category{j}"][:] = 0
            np.add.at(gradient[f"category{j}"], codes, p)
        return loss

    def evaluate(self, parameters, batch, predicted):
        """The likeliest class, and the summed loss."""
        p, loss = self._softmax(parameters, batch)
        predicted[:] = p.argmax(axis=1)
        return loss

    def _softmax(self, parameters, batch):
        logits = batch.inputs["x"] @ parameters["w"]
        for j, codes in enumerate(batch.inputs["categories"].T):
            logits += parameters[f"category{j}"][codes]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return p, -float(np.log(p[np.arange(len(p)), batch.y]).sum())
