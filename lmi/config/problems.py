"""All that is wrong with a configuration, told at once."""

from __future__ import annotations

from collections.abc import Iterable

from lmi.core import ConfigError


class ConfigErrors(ConfigError):
    """Every problem of one configuration, so that a user mends them in one go.

    problems: in the order of the files, then of the environment; never empty. `str(error)` has one
    line for each. The attributes of ConfigError are those of the first problem.
    """

    def __init__(self, problems: Iterable[ConfigError]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.option, first.value, first.source, first.want)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)
