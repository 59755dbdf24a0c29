"""The tests; README.md says how they are run and which rules they follow."""
