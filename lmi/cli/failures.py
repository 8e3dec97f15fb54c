"""Errors as a person on a terminal wants them: a line each, an exit code, no traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lmi.core import BuildError, ConfigError, LmiError

REFUSED = 2
BUILD_FAILED = 3


@contextmanager
def told(*, as_json: bool = False) -> Iterator[None]:
    """Turns an LmiError into its lines and its exit code: 3 for a failed build, else 2."""
    try:
        yield
    except LmiError as error:
        if as_json:
            sys.stdout.write(
                json.dumps({"ok": False, "problems": _problems(error)}, indent=2) + "\n"
            )
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        code = BUILD_FAILED if isinstance(error, BuildError) else REFUSED
        raise typer.Exit(code) from None


def _problems(error: LmiError) -> list[dict[str, str | None]]:
    from lmi.config import ConfigErrors

    problems = error.problems if isinstance(error, ConfigErrors) else (error,)
    return [
        {
            "option": problem.option,
            "value": problem.value,
            "source": problem.source,
            "want": problem.want,
        }
        if isinstance(problem, ConfigError)
        else {"want": str(problem)}
        for problem in problems
    ]
