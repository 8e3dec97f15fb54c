"""A worker: a user's handler in a process of its own. Run by `lmi.custom.process`, not by hand.

It obeys one socket. Whatever the handler prints goes to the standard streams, which the front reads
and logs; no answer ever travels there. It ends when told to, when the socket closes, and when its
parent dies. SIGINT and SIGTERM go to whole groups of processes, and the parent, which drains first,
decides what they mean: the worker ignores them.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import inspect
import io
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lmi.core import LmiError, ModelError, OutOfMemory
from lmi.custom import concurrent, marks
from lmi.custom.answers import Stream, interpret, is_out_of_memory
from lmi.custom.channel import Channel
from lmi.custom.handlers import Handler, load_handler
from lmi.custom.inputs import make_input
from lmi.custom.messages import Failed, Fault, Ready, Start
from lmi.custom.serial import Serial
from lmi.ipc.tether import die_with

_REFUSED: Final = 300  # from this status on, the initialise call has failed

log = logging.getLogger("lmi.custom")


class Runner:
    """The life of a worker, from Start to its end."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._channel = Channel(link)

    def run(self) -> int:
        """Returns the exit code: 0 after Close, 1 otherwise."""
        try:
            with asyncio.Runner() as runner:
                self._work(runner)
        except ConnectionError:
            return 1
        except LmiError as error:
            return self._report(error)
        return 0

    def _work(self, runner: asyncio.Runner) -> None:
        start, *more = self._channel.next()
        assert isinstance(start, Start)
        if more:  # nothing but Close comes before Ready
            return
        sys.path.insert(0, start.folder)
        folder = Path(start.folder)
        handler = load_handler(folder, start.entry_point, start.fallback, start.handler)
        first: dict[str, Any] = {
            **start.properties,
            "model_dir": start.folder,
            "device_id": str(start.device_id),
        }
        first.update(marks.for_stock(folder, handler.module))
        own = {"model_dir": start.folder}
        _initialise(handler, first, runner)
        capacity = start.concurrency if handler.asynchronous else 0
        self._channel.send(Ready(handler.described, capacity))
        if handler.asynchronous:
            runner.run(concurrent.serve(self._link, handler, own))
        else:
            Serial(self._channel, handler, own, runner).run()

    def _report(self, error: LmiError) -> int:
        try:
            self._channel.send(Failed(Fault.of(error)))
        except ConnectionError:
            log.error("the front is gone and can't be told: %s", error)
        return 1


def _initialise(handler: Handler, properties: dict[str, Any], runner: asyncio.Runner) -> None:
    """The call without content that a handler gets first; raises ModelError where it fails."""
    inputs = make_input({**properties, "handler": handler.name}, (), handler.name)
    try:
        result = handler.main(inputs)
        if inspect.isawaitable(result):
            result = runner.run(_awaited(result))
        elif inspect.isasyncgen(result):
            result = runner.run(anext(result, None))
        answer = interpret(result)
    except (Exception, SystemExit) as error:  # whatever a user's code may raise
        log.exception("%s failed to initialise", handler.described)
        text = f"{handler.described}, the initialise call: {type(error).__name__}: {error}"
        raise (OutOfMemory if is_out_of_memory(error) else ModelError)(text) from error
    if isinstance(answer, Stream) or answer.head.status < _REFUSED:
        return
    said = answer.body.decode(errors="replace")[:500]
    raise ModelError(
        f"{handler.described}, the initialise call: it answered {answer.head.status} "
        f"{answer.head.reason} {said}".rstrip()
    )


async def _awaited(result: Any) -> Any:
    return await result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: `--fd` of the socket, `--parent` process that must live."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    # Programs that the handler starts shall find their own folder as ever.
    os.environ.pop("PYTHONSAFEPATH", None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a line is logged when it is printed
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    with socket.socket(fileno=options.fd) as link:
        link.set_inheritable(False)  # a child of the handler's must not keep it open after us
        return Runner(link).run()


if __name__ == "__main__":
    sys.exit(main())
