"""Benchmarks: one file per question, one shared harness. README.md says what each number means."""
