"""How gradients become new parameters. sync.py: every rank adds, every rank updates, in step."""
