"""The worker: LMI-Dist's core in a process of its own. Run by `lmi.dist.process`, not by hand.

It obeys one socket. While there is work it steps, and looks for messages between the steps without
waiting; otherwise it waits for a message. It ends when told to, when the socket closes, and when
its parent dies. SIGINT and SIGTERM go to whole groups of processes, and the parent, which drains
first, decides what they mean: the worker ignores them.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Final

from lmi.core import EngineDead, EngineError, Finish, LmiError, RequestError
from lmi.dist.engine import Core
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest
from lmi.dist.wire import (
    Cancel,
    Close,
    Deframer,
    Failed,
    FromFront,
    FromWorker,
    Progress,
    Ready,
    Start,
    Stepped,
    Submit,
    decode_from_front,
    frame,
)

_PR_SET_PDEATHSIG: Final = 1
_RECEIVE_BYTES: Final = 1 << 18

log = logging.getLogger(__name__)


class Channel:
    """The worker's end of the socket. Raises ConnectionError when the other end is gone."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._deframer = Deframer()

    def send(self, message: FromWorker) -> None:
        """Send one message; waits while the front does not read."""
        self._link.sendall(frame(message))

    def waiting(self) -> list[FromFront]:
        """The messages that are here, without waiting."""
        messages: list[FromFront] = []
        while True:
            try:
                data = self._link.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            messages += self._messages(data)
            if len(data) < _RECEIVE_BYTES:
                return messages

    def next(self) -> list[FromFront]:
        """Wait for messages; at least one."""
        messages: list[FromFront] = []
        while not messages:
            messages += self._messages(self._link.recv(_RECEIVE_BYTES))
        return messages

    def _messages(self, data: bytes) -> Iterable[FromFront]:
        if not data:
            raise ConnectionResetError("the front is gone")
        return map(decode_from_front, self._deframer.feed(data))


def serve(channel: Channel, core: Core) -> None:
    """Step and obey until Close. Raises ConnectionError, and what the core raises."""
    while True:
        messages = channel.waiting() if core.has_work else channel.next()
        events: list[CoreEvent] = []
        for message in messages:
            match message:
                case Submit(request):
                    events += _add(core, request)
                case Cancel(request_id):
                    core.cancel(request_id)
                case Close():
                    return
                case Start():
                    raise EngineDead("a second Start came")
        if core.has_work:
            events += core.step()
        channel.send(Stepped(events, core.stats()))


def _add(core: Core, request: CoreRequest) -> list[CoreEvent]:
    try:
        core.add(request)
    except (RequestError, EngineError) as error:
        detail = CoreDetail(error=CoreError.of(error))
        return [
            CoreEvent(request.id, choice, None, Finish.ERROR, detail=detail)
            for choice in range(request.choices)
        ]
    return []


def _load(channel: Channel, messages: list[FromFront]) -> Core:
    start = messages[0]
    if not isinstance(start, Start):
        raise EngineDead(f"expected Start, not {type(start).__name__}")
    module, _, name = start.core.partition(":")
    make: Callable[..., Core] = getattr(import_module(module), name)

    def progress(phase: str, done: int, total: int) -> None:
        channel.send(Progress(phase, done, total))

    return make(start.config, progress)


def run(channel: Channel) -> int:
    """The life of a worker; returns its exit code: 0 after Close, 1 otherwise."""
    core: Core | None = None
    # What torch and transformers bring stays for good: collecting while they are imported costs a
    # tenth of the start, and walking through it later would make steps stutter.
    gc.disable()
    try:
        core = _load(channel, channel.next())
        gc.freeze()
        gc.enable()
        channel.send(Ready(core.info))
        serve(channel, core)
    except ConnectionError:
        log.info("the front is gone: the worker ends")
        return 1
    except LmiError as error:
        return _report(channel, error)
    except Exception as error:  # the last word of a process that is about to end
        log.exception("the worker failed")
        return _report(channel, EngineDead(f"{type(error).__name__}: {error}"))
    finally:
        if core is not None:
            core.close()
    return 0


def _report(channel: Channel, error: LmiError) -> int:
    try:
        channel.send(Failed.of(error))
    except ConnectionError:
        log.error("the front is gone and can't be told: %s", error)
    return 1


def _die_with(parent: int) -> None:
    """Let the kernel kill us when the thread that started us ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main() -> int:
    """The command: `--fd` of the socket, `--parent` process that must live."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    _die_with(options.parent)
    os.set_inheritable(options.fd, False)  # a child of ours must not keep it open after us
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with socket.socket(fileno=options.fd) as link:
        return run(Channel(link))


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(exit_code)  # the core is closed: taking torch's modules apart would only cost seconds
