"""A model of tokens: what the next token is, by the last one alone."""

import numpy as np

from lepton_mpi.batch import Input


class Bigram:
    """One row of logits for each token."""

    task = "tokens"

    def __init__(self, feature_shape, output_count):
        self.shapes = {"table": (output_count, output_count)}
        self.inputs = {"tokens": Input("tokens", feature_shape, output_count)}

    def loss_and_gradient(self, parameters, batch, gradient):
        """Cross-entropy over the tokens that count."""
        counts = batch.y >= 0
        last, wanted = batch.inputs["tokens"][counts], batch.y[counts]
        p, loss, likeliest = _softmax(parameters["table"][last], wanted)
        p[np.arange(len(wanted)), wanted] -= 1
        gradient["table"][:] = 0
        np.add.at(gradient["table"], last, p)
        return loss, int((likeliest == wanted).sum())

    def evaluate(self, parameters, batch, predicted):
        """The likeliest token at every place, and the summed loss."""
        predicted[:] = parameters["table"].argmax(axis=1)[batch.inputs["tokens"]]
        counts = batch.y >= 0
        logits = parameters["table"][batch.inputs["tokens"][counts]]
        return _softmax(logits, batch.y[counts])[1]


def _softmax(logits, wanted):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p, -float(np.log(p[np.arange(len(wanted)), wanted]).sum()), p.argmax(axis=1)
