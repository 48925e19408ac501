"""Whole comparisons, as programs: `python -m experiments.miniature`, `python -m experiments.two_stage`."""
