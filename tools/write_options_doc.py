"""Writes docs/options.md from the option table; --check only says whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from lmi.config.options import ANY, TABLE, Option
from lmi.config.options.base import FIRST, LAST
from lmi.config.sources import variables_of
from lmi.config.variables import VARIABLES, Variable

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "options.md"

_HEAD = """\
# Options

Written by `tools/write_options_doc.py` from the table in `lmi/config/options`: change it there.

An option stands in the folder's `serving.properties`, in a variable, or after `--set`. Of several
values the highest wins: `--set`, `SAGEMAKER_*`, what the DJL model server says where it starts us,
`serving.properties`, `OPTION_*` and `ARGS_*`, the other variables, the default. Keys of the server
may also stand in `config.properties` under `MODEL_SERVER_HOME`; there `SERVING_*` beats every file.
`lmi explain FOLDER` shows each value with its origin.

No setting is ignored. An unknown or misspelt one stops start-up and names the nearest option
(`option.unknown_options=warn` lets it pass, for migrations). A known one that the engine can't
honour stops it too, unless it is *not needed* there: then it is reported, and why. Beside a
handler of the model's own, unknown options are handed to that handler. Booleans are true, false,
1, 0, yes, no, on, off, t, f, y and n.

In the tables *used by* names the engines that read an option; **every engine** means that the
launcher or the server does. Arguments of vLLM that are not listed are options too where vLLM runs:
`option.<name>`, as recorded for each release in `lmi/config/vllm_arguments.json`.
"""


def document() -> str:
    """The whole text."""
    parts = [_HEAD]
    for group, options in groupby(TABLE, key=lambda option: option.group):
        parts.append("\n".join((f"\n## {group}\n", *_table(list(options)))))
    parts.append("\n".join(("\n## Variables that set no option\n", *_variables())))
    return "\n".join(parts) + "\n"


def _table(options: list[Option]) -> Iterator[str]:
    yield "| Option | Value | Default | Used by | What it does |"
    yield "|---|---|---|---|---|"
    for option in options:
        default = "" if option.default is None else f"`{option.default}`"
        cells = (_names(option), option.kind.label, default, _users(option), _text(option))
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _names(option: Option) -> str:
    names = [f"`{option.key}`", *(f"`{name}`" for name in variables_of(option))]
    names += [f"older: `{alias}`" for alias in option.aliases]
    return "<br>".join(names)


def _users(option: Option) -> str:
    lines = []
    if option.used:
        lines.append(", ".join("every engine" if name == ANY else name for name in option.used))
    elsewhere = "elsewhere: " if option.used else ""
    for word, reasons in (("not needed", option.advisory), ("refused", option.refused)):
        lines += [
            f"{elsewhere if names == ANY else names + ': '}{word}, {reason}"
            for names, reason in _together(reasons)
        ]
    limits = {
        name: ", ".join(str(value).lower() for value in limit.values)
        for name, limit in option.limits.items()
    }
    lines += [f"{names}: only {values}" for names, values in _together(limits)]
    return "<br>".join(lines)


def _together(column: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Engines of which the same is said, in one line."""
    for text in dict.fromkeys(column.values()):
        yield ", ".join(name for name, said in column.items() if said == text), text


def _text(option: Option) -> str:
    if option.ours:
        return f"{option.doc} *Not in LMI.*"
    if (option.since, option.until) == (FIRST, LAST):
        return option.doc
    return f"{option.doc} *LMI {option.since} to {option.until}.*"


def _variables() -> Iterator[str]:
    yield "| Variable | What it means here |"
    yield "|---|---|"
    for variable in sorted(VARIABLES.values(), key=_name):
        if not variable.keys:
            yield f"| `{variable.name}` | {_cell(variable.doc)} |"


def _name(variable: Variable) -> str:
    return variable.name


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Exit code 1 where --check finds another text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is stale")
    check = parser.parse_args().check
    text = document()
    if not check:
        DOCUMENT.write_text(text, encoding="utf-8")
        return 0
    if DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/options.md is stale: run tools/write_options_doc.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
