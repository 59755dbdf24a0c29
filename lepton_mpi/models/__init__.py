"""From batch to gradient; knows nothing of ranks. START with model.py, what a model is; registry.py has the built-in ones by name."""
