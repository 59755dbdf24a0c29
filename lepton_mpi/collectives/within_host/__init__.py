"""Collectives in memory that the ranks of a host share: meetings, folds, and the plans that sum vectors in place; published.py: what others take without waiting."""
