"""`lmi test-handler`: a model's own code, run as a server would run it, without a server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmi.cli.failures import told
from lmi.cli.inputs import AsJson, FrontChoice, Sets, resolution

if TYPE_CHECKING:
    from lmi.config import ModelSpec
    from lmi.core import Call, Head, LmiError
    from lmi.session import Served

FAILED = 1
"""The exit code for a request that was answered with an error."""

_FIRST_ERROR = 400
_MILLI = 1000.0


@dataclass
class Received:
    """An answer as it came; times are in seconds after the request."""

    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    took: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.chunks)


def try_handler(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The model's folder, with its model.py.")
    ],
    request: Annotated[
        Path | None,
        typer.Argument(
            metavar="[REQUEST]",
            help="A file with the request: its body, or a JSON object of headers, function, and "
            "body or content. - for standard input. Default: an empty JSON object.",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show each chunk of the answer with its time.")
    ] = False,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, help="Send it so often, one after the other.")
    ] = 1,
    init_only: Annotated[
        bool, typer.Option("--init-only", help="Load the code, send nothing.")
    ] = False,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run a model's handler or its formatters on a request, without a server.

    The code is loaded and called as a server does it: a handle in a process of its own, formatters
    beside their engine. What it prints and its tracebacks go to standard error. Exit code: 0; 1
    when the answer is an error; 2 when the code can't be loaded.

    Examples:

    lmi test-handler my-model request.json

    echo '{"inputs": "hi"}' | lmi test-handler my-model -

    lmi test-handler my-model request.json --stream --set engine=echo
    """
    with told(as_json=as_json):
        from lmi.cli.handler_request import read_request

        call = None if init_only else read_request(request)
        resolved = resolution(folder, sets, front=FrontChoice.EMBEDDED)
        _log()
        # Hooks run in this process: what they print must not stand in the answer.
        with redirect_stdout(sys.stderr):
            answers, seconds = asyncio.run(_try(resolved.spec, call, repeat))
        if as_json:
            sys.stdout.write(json.dumps(_document(answers, seconds), indent=2) + "\n")
        else:
            _show(answers, seconds, stream)
    if any(answer.status >= _FIRST_ERROR for answer in answers):
        raise typer.Exit(FAILED)


async def _try(spec: ModelSpec, call: Call | None, repeat: int) -> tuple[list[Received], float]:
    """Load, ask and close; the answers, and the seconds that loading took. Raises LmiError."""
    from lmi.launch.model import binder, loaded, make

    served = make(spec, binder(spec, os.environ), os.environ)
    began = time.monotonic()
    served.start()
    try:
        await loaded(served, spec)
        seconds = time.monotonic() - began
        if call is None:
            return [], seconds
        return [await _ask(served, call) for _ in range(repeat)], seconds
    finally:
        await served.close()


async def _ask(served: Served, call: Call) -> Received:
    from lmi.core import LmiError

    sink = _Sink()
    try:
        served.accept(call, sink)
    except LmiError as error:
        sink.fail(error)
    await sink.ended.wait()
    return sink.received


class _Sink:
    """Keeps an answer with its times."""

    def __init__(self) -> None:
        self.received = Received()
        self.ended = asyncio.Event()
        self._began = time.perf_counter()

    def describe(self, head: Head) -> None:
        received = self.received
        received.status, received.reason = head.status, head.reason
        received.headers = dict(head.headers)

    def write(self, data: bytes, last: bool) -> None:
        now = time.perf_counter() - self._began
        if data:
            self.received.chunks.append((now, data))
        if last:
            self.received.took = now
            self.ended.set()

    def fail(self, error: LmiError) -> None:
        from lmi.schemas import error_body
        from lmi.schemas.errors import status_of

        self.received.status, self.received.reason = status_of(error), "the request failed"
        self.received.headers = {"content-type": "application/json"}
        self.write(error_body(error), last=True)


def _document(answers: list[Received], seconds: float) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "ok": all(answer.status < _FIRST_ERROR for answer in answers),
        "load_seconds": round(seconds, 3),
        "answers": [
            {
                "status": answer.status,
                "reason": answer.reason,
                "headers": answer.headers,
                "body": answer.body.decode(errors="replace"),
                "milliseconds": round(_MILLI * answer.took, 3),
                "chunk_milliseconds": [round(_MILLI * at, 3) for at, _ in answer.chunks],
            }
            for answer in answers
        ],
    }


def _show(answers: list[Received], seconds: float, stream: bool) -> None:
    """The answers for people."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"loaded in {seconds:.2f} s", style="dim")
    if not answers:
        return
    answer = answers[-1]
    color = "red" if answer.status >= _FIRST_ERROR else "green"
    console.print(Text(f"{answer.status} {answer.reason}".rstrip(), style=f"bold {color}"))
    for name, value in answer.headers.items():
        console.print(Text(f"{name}: {value}", style="cyan"))
    console.print()
    if stream:
        for at, data in answer.chunks:
            console.print(Text(f"{_MILLI * at:9.2f} ms  ", style="dim"), end="")
            console.print(Text(data.decode(errors="replace").rstrip("\n")))
    else:
        console.print(Text(_readable(answer)))
    console.print(Text(_times(answers), style="dim"))


def _readable(answer: Received) -> str:
    """A body for people: JSON indented, text as it is, the size of anything else."""
    try:
        text = answer.body.decode()
    except UnicodeDecodeError:
        return f"({len(answer.body)} bytes)"
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text.rstrip("\n")


def _times(answers: list[Received]) -> str:
    took = sorted(_MILLI * answer.took for answer in answers)
    if len(took) == 1:
        return f"answered in {took[0]:.2f} ms"
    median = took[len(took) // 2]
    return f"{len(took)} answers: best {took[0]:.2f} ms, median {median:.2f}, worst {took[-1]:.2f}"


def _log() -> None:
    import logging

    from lmi.launch import logs

    logs.configure("warning")
    logging.getLogger("lmi.worker").setLevel(logging.INFO)  # what the code prints
