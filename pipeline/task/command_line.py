"""The words of a step's command line, as a task is handed them: what a flag says, and another value for it."""

from collections.abc import Sequence

from components.common.errors import SettingsError


def value(words: Sequence[str], flag: str) -> str:
    """What stands after `--flag`. Raises SettingsError where the command line has none."""
    return words[_place(words, flag)]


def with_value(words: Sequence[str], flag: str, new: str) -> list[str]:
    """The same words, but for what stands after `--flag`. Raises SettingsError where the command line has none."""
    at = _place(words, flag)
    return [*words[:at], new, *words[at + 1 :]]


def _place(words: Sequence[str], flag: str) -> int:
    if f"--{flag}" not in words[:-1]:
        raise SettingsError(f"the step's command line {' '.join(words[:1])} has no --{flag}")
    return words.index(f"--{flag}") + 1
