"""Two thousand misspellings of documented options: all are caught, nearly all by the right name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, resolve
from lmi.config.options import TABLE, spellings
from lmi.config.properties import render
from lmi.config.sources import variable_names
from lmi.config.vllm_arguments import arguments
from tests.unit.config.harness import HERE, misspelt

PER_SOURCE = 1000
RIGHT_NAME = 0.95  # the share that must be told the very option that was meant
AT_ONCE = 200  # misspellings in one configuration


def _means_something(name: str) -> bool:
    """Whether an edited name is a documented one all the same (max_loras, max_lora)."""
    bare = name.removeprefix("option.")
    return (
        name in spellings()
        or f"option.{name}" in spellings()
        or bare in arguments()
        or name in variable_names()
        or f"option.{name.removeprefix('OPTION_').lower()}" in spellings()
        or name.removeprefix("OPTION_").lower() in arguments()
    )


def _edits(names: list[str], seed: int) -> dict[str, str]:
    """Misspellings and what was meant, each once."""
    rng = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < PER_SOURCE:
        name = rng.choice(names)
        edited = misspelt(name, rng)
        if not _means_something(edited):
            found.setdefault(edited, name)
    return found


def _flagged(problems: ConfigErrors) -> dict[str, str]:
    return {problem.option: problem.want for problem in problems.problems}


@pytest.mark.slow
def test_misspellings_are_all_flagged_and_the_right_option_is_named(folder: Path) -> None:
    in_file = _edits([option.key for option in TABLE], seed=3)
    in_environment = _edits([option.variable for option in TABLE] + list(_special()), seed=4)
    flagged: dict[str, str] = {}
    for start in range(0, PER_SOURCE, AT_ONCE):
        lines = list(in_file)[start : start + AT_ONCE]
        variables = list(in_environment)[start : start + AT_ONCE]
        (folder / "serving.properties").write_text(render(dict.fromkeys(lines, "1")))
        with pytest.raises(ConfigErrors) as caught:
            resolve(folder, dict.fromkeys(variables, "1"), installed=HERE)
        flagged.update(_flagged(caught.value))
    meant = {**in_file, **in_environment}
    missed = [name for name in meant if name not in flagged]
    right = sum(f"did you mean {meant[name]}?" in flagged.get(name, "") for name in meant)
    print(f"{len(meant)} misspellings: {len(meant) - len(missed)} flagged, {right} named right")
    assert missed == []
    assert right >= RIGHT_NAME * len(meant)


def _special() -> list[str]:
    """Variables with names of their own that set an option."""
    return [name for name in variable_names() if not name.startswith(("OPTION_", "ARGS_"))]


def test_a_misspelling_of_each_kind_names_its_option(folder: Path) -> None:
    for edited in ("option.dtyp", "option.dtypee", "option.dtypa", "option.dtyep"):
        (folder / "serving.properties").write_text(f"{edited}=fp16")
        with pytest.raises(ConfigErrors, match=r"did you mean option\.dtype\?"):
            resolve(folder, {}, installed=HERE)
