"""A worker: a core in a process of its own. Run by `lmi.dist.process`, not by hand.

It obeys one socket. While there is work it steps, and looks for messages between the steps without
waiting; otherwise it waits for a message. It ends when told to, when the socket closes, and when
its parent dies. SIGINT and SIGTERM go to whole groups of processes, and the parent, which drains
first, decides what they mean: the worker ignores them. A follower, a rank other than 0, loads in
the same way, and then obeys rank 0.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Final

from lmi.core import EngineDead, EngineError, Finish, LmiError, RequestError
from lmi.dist.channel import Channel
from lmi.dist.config import DistConfig
from lmi.dist.cores import settle
from lmi.dist.engine import AdapterCore, Core, Progress, WakingCore, silent
from lmi.dist.foreign import ForeignConfig
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest
from lmi.dist.parallel.following import Follower
from lmi.dist.parallel.leading import LeadingCore
from lmi.dist.parallel.meeting import join
from lmi.dist.place import Place
from lmi.dist.wire import (
    AddAdapter,
    Answered,
    Cancel,
    Close,
    DropAdapter,
    Failed,
    FromFront,
    Ready,
    Start,
    Stepped,
    Submit,
)
from lmi.dist.wire import Progress as Loading
from lmi.ipc.tether import die_with

# Beats of an idle rank 0 in the time after which its followers take it for hung.
_BEATS: Final = 4

# For the front to find out why a job is over; it ends all ranks then.
_JUDGEMENT_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


def serve(channel: Channel, core: Core) -> None:
    """Step and obey until Close. Raises ConnectionError, and what the core raises."""
    news = core.fileno() if isinstance(core, WakingCore) else None
    while True:
        messages = channel.waiting() if core.has_work else channel.next(news)
        events: list[CoreEvent] = []
        for message in messages:
            match message:
                case Submit(request):
                    events += _add(core, request)
                case Cancel(request_id, choice):
                    core.cancel(request_id, choice)
                case AddAdapter() | DropAdapter():
                    channel.send(_change(core, message))
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


def _change(core: Core, message: AddAdapter | DropAdapter) -> Answered:
    assert isinstance(core, AdapterCore), "only an engine with adapters sends such a message"
    try:
        if isinstance(message, AddAdapter):
            core.register_adapter(message.adapter)
        else:
            core.unregister_adapter(message.name)
    except (RequestError, EngineError) as error:
        return Answered(message.number, CoreError.of(error))
    return Answered(message.number)


def _environment(start: Start) -> Mapping[str, str]:
    """What the libraries look at once, when they are imported."""
    config = start.config
    if isinstance(config, ForeignConfig):
        return config.environment
    return settle(start.place, config.threads, os.environ)


def _load(channel: Channel, start: Start) -> Core | Follower:
    place = start.place
    os.environ.update(_environment(start))
    module, _, name = start.core.partition(":")
    make: Callable[..., Core | Follower] = getattr(import_module(module), name)

    def progress(phase: str, done: int, total: int) -> None:
        channel.send(Loading(phase, done, total))

    told: Progress = progress if place.rank == 0 else silent
    where = () if place.size == 1 else (place,)
    return make(start.config, told, *where, **start.arguments)


def _work(channel: Channel, core: Core | Follower, config: DistConfig | ForeignConfig) -> None:
    if isinstance(core, Follower):
        core.run()
        return
    if isinstance(core, LeadingCore) and isinstance(config, DistConfig):
        channel.while_waiting(core.beat, config.collective_timeout / _BEATS)
    channel.send(Ready(core.info))
    serve(channel, core)


def run(channel: Channel) -> int:
    """The life of a worker; returns its exit code: 0 after Close, 1 otherwise."""
    core: Core | Follower | None = None
    rank = 0
    # What torch and transformers bring stays for good: collecting while they are imported costs a
    # tenth of the start, and walking through it later would make steps stutter.
    gc.disable()
    try:
        start = _start(channel.next())
        rank = start.place.rank
        _log_as(start.place)
        core = _load(channel, start)
        gc.freeze()
        gc.enable()
        _work(channel, core, start.config)
    except ConnectionError:
        log.info("the front is gone: the worker ends")
        return 1
    except LmiError as error:
        return _report(channel, rank, error)
    except Exception as error:  # the last word of a process that is about to end
        log.exception("the worker failed")
        return _report(channel, rank, EngineDead(f"{type(error).__name__}: {error}"))
    finally:
        if core is not None:
            core.close()
    return 0


def _start(messages: list[FromFront]) -> Start:
    start = messages[0]
    if not isinstance(start, Start):
        raise EngineDead(f"expected Start, not {type(start).__name__}")
    return start


def _report(channel: Channel, rank: int, error: LmiError) -> int:
    try:
        channel.send(Failed.of(error, rank))
    except ConnectionError:
        log.error("the front is gone and can't be told: %s", error)
    return 1


def _log_as(place: Place) -> None:
    who = f" [rank {place.rank}]" if place.size > 1 else ""
    logging.basicConfig(level=logging.INFO, format=f"%(name)s{who}: %(message)s")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: `--fd` of the socket, `--parent` process that must live; or `--join` a job that
    is met under this name, as one of the ranks that mpirun has started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--join")
    options = parser.parse_args(arguments)
    if options.join is not None:
        die_with(os.getppid())
        link = join(options.join, os.environ)
    else:
        die_with(options.parent)
        link = socket.socket(fileno=options.fd)
        link.set_inheritable(False)  # a child of ours must not keep it open after us
    with link:
        channel = Channel(link)
        code = run(channel)
        if code and options.join is not None:
            # mpirun kills all ranks when one has failed: the front is to see first which it was.
            channel.await_end(_JUDGEMENT_SECONDS)
        return code


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(exit_code)  # the core is closed: taking torch's modules apart would only cost seconds
