"""The rows of the contest: a method by its name."""

from experiments.contestant import Contestant

METHODS: dict[str, Contestant] = {}
"""By row."""
