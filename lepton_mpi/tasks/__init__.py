"""Tasks: what a target is, how loss and counts add up over ranks, and the figures computed from the sums.

Reading order::

    task.py       the protocol
    ranking.py    what a task may have beside it: figures of how rows are ordered
    classes.py    one class a row: confusion matrix, accuracy, precision, recall, F1; of two classes, AUC
    targets.py    numbers to predict: squared and absolute errors, r2
    tokens.py     the next token at every position: nats per token, perplexity, bits per byte
    registry.py   by name, or a task of the user's own
"""
