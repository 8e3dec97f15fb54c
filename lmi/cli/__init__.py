"""The commands, a module for each; heavy libraries are imported inside those that need them."""

from __future__ import annotations

import sys

import typer

from lmi.cli.check import check
from lmi.cli.explain import explain
from lmi.cli.quantize import quantize
from lmi.cli.serve import serve
from lmi.cli.test_handler import try_handler

__all__ = ["app", "main"]

# Plain help and plain tracebacks: rich costs start-up time that `lmi --help` has no use for.
app = typer.Typer(
    name="lmi",
    help="A folder with a serving.properties becomes a large-model endpoint.",
    epilog="Example: lmi check /opt/ml/model",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(check)
app.command()(explain)
app.command()(quantize)
app.command("test-handler")(try_handler)


def main() -> None:
    """The `lmi` command."""
    try:
        app()
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; Python must not flush into it again.
        sys.stdout = None
        raise SystemExit(0) from None
