"""Tasks: what a target is, how loss and counts add up over ranks, and the figures computed from the sums."""
