"""What a step costs the worker behind the DJL model server: `python -m benchmarks.worker_step`.

Java's side is bytes made in advance, the engine's are deltas made in advance, the socket is none:
what is left is ours. Of one step of a rolling batch: decode (Java's bytes to a message), the rest
(the session's turn, formatting, encoding, the loop's own turns), and both together; of a new
request: its way in (parsing, admission). Of async mode: what one token of every request costs.
CPU time of this process, without the engine's poll; goal: 256 streamed requests under 3 ms a step.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.figures import machine
from lmi.core import Delta, EngineInfo, EngineStats, Finish, GenerationRequest, Token, Usage
from lmi.djl.channel import Channel
from lmi.djl.decode import Decoder
from lmi.djl.encode import Encoder
from lmi.djl.loops import Loops
from lmi.djl.wire import TRACKING_ID, Message, Width
from lmi.session import Loaded, Session, SessionConfig
from tests.support.djl_bytes import request

BATCHES: Final = (1, 32, 256)
GOAL_MS: Final = 3.0
_WORDS: Final = (" the", " of", " water", " light", "ing", " and", " 12", ".\n")


class Prepared:
    """An engine whose poll hands out what was made before: a token for each live request."""

    def __init__(self) -> None:
        self.info = EngineInfo("prepared", "none", 1_000_000, 1000, 4096)
        self.seconds = 0.0  # spent in poll
        self._live: list[int] = []
        self._wake: Callable[[], None] = lambda: None
        self._asked = False
        self._ends: list[int] = []
        self._tokens = [Token(number, word) for number, word in enumerate(_WORDS)]
        self._step = 0

    def submit(self, request: GenerationRequest, /) -> None:
        if request.sampling.max_new_tokens == 1:  # a warm-up
            self._ends.append(request.id)
            self.step()
        else:
            self._live.append(request.id)

    def step(self) -> None:
        """Have a token ready for everybody."""
        self._asked = True
        self._wake()

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        started = time.thread_time()
        token = (self._tokens[self._step % len(self._tokens)],)
        self._step += 1
        deltas = [Delta(number, 0, token) for number in self._live] if self._asked else []
        deltas += [Delta(number, 0, token, Finish.LENGTH, Usage(1, 1)) for number in self._ends]
        self._ends.clear()
        self._asked = False
        self.seconds += time.thread_time() - started
        return deltas

    def cancel(self, request_id: int, /) -> None:
        if request_id in self._live:
            self._live.remove(request_id)

    def on_ready(self, wake: Callable[[], None], /) -> None:
        self._wake = wake

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._live))

    def close(self) -> None:
        """Nothing to release."""


class Nowhere(asyncio.Transport):
    """A transport that counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.arrived = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += len(data)
        self.arrived.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Cost:
    """Of one step, in milliseconds of CPU; new: of one request's way in. sent: bytes a step."""

    mode: str
    width: str
    batch: int
    streamed: bool
    new: float
    decode: float
    rest: float
    total: float
    sent: int


def body(streamed: bool) -> bytes:
    return json.dumps(
        {
            "inputs": "Write down what you know of rivers, and of the towns beside them.",
            "stream": streamed,
            "parameters": {"max_new_tokens": 100_000, "do_sample": True, "temperature": 0.7},
        }
    ).encode()


async def measure(mode: str, width: Width, batch: int, streamed: bool, steps: int) -> Cost:
    """Run `steps` steps of `batch` requests that go on and on."""
    engine = Prepared()
    session = Session(SessionConfig("m", max_queue=10_000), lambda progress: Loaded(engine))
    session.start()
    await session.ready()
    channel = Channel(lambda message: None, lambda garbage: None)
    wire = Nowhere()
    channel.connection_made(wire)
    # Steps without news are answered at once here: waiting costs no CPU, and so much time.
    options = {
        "rolling_batch": "auto",
        "max_rolling_batch_size": "9999",
        "predict_timeout": "0.001",
    }
    loops = Loops(session, Encoder(width), channel, options, ())
    data = body(streamed)
    headers = {"Content-Type": "application/json", "X-Request-Id": "0123456789abcdef"}
    if mode == "async":
        cost = await _async(loops, engine, wire, batch, steps, data, headers)
    else:
        cost = await _rolling(loops, engine, wire, width, batch, steps, data, headers)
    loops.forget()
    await session.close()
    return Cost(mode, width.name.lower(), batch, streamed, *cost)


async def _rolling(
    loops: Loops,
    engine: Prepared,
    wire: Nowhere,
    width: Width,
    batch: int,
    steps: int,
    data: bytes,
    headers: dict[str, str],
) -> tuple[float, float, float, float, int]:
    names = [f"batch_{place:03}" for place in range(batch)]
    common: dict[str, str | None] = {"batch_size": str(batch), "handler": "handle"}
    new: dict[str, str | None] = dict(common)
    for name in names:
        new |= {f"{name}.{key}": value for key, value in headers.items()}
    first = request(new, [(f"{name}.data", data) for name in names], width)
    step = request(common, [(f"{name}.data", b"") for name in names], width)
    decoder = Decoder()
    (message,) = decoder.feed(first)
    started = time.thread_time()
    engine.step()
    await loops.answer(message)
    way_in = time.thread_time() - started
    engine.seconds, wire.written = 0.0, 0
    decoding = 0.0
    gc.collect()
    started = time.thread_time()
    for _ in range(steps):
        engine.step()
        before = time.thread_time()
        (message,) = decoder.feed(step)
        decoding += time.thread_time() - before
        await loops.answer(message)
    total = time.thread_time() - started - engine.seconds
    each = 1000 / steps
    return (
        1000 * way_in / batch,
        decoding * each,
        (total - decoding) * each,
        total * each,
        wire.written // steps,
    )


async def _async(
    loops: Loops,
    engine: Prepared,
    wire: Nowhere,
    batch: int,
    steps: int,
    data: bytes,
    headers: dict[str, str],
) -> tuple[float, float, float, float, int]:
    messages = [
        Message({**headers, TRACKING_ID: f"{n:08}-0000-0000-0000-000000000000"}, (("data", data),))
        for n in range(batch)
    ]
    started = time.thread_time()
    for message in messages:
        loops.open(message)
    way_in = time.thread_time() - started
    streamed = b'"stream": true' in data
    engine.seconds, wire.written = 0.0, 0
    gc.collect()
    started = time.thread_time()
    for _ in range(steps):
        wire.arrived.clear()
        engine.step()
        if streamed:
            await wire.arrived.wait()
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    total = time.thread_time() - started - engine.seconds
    return (
        1000 * way_in / batch,
        0.0,
        total / steps * 1000,
        total / steps * 1000,
        (wire.written // steps),
    )


def run(quick: bool) -> list[Cost]:
    """Every combination; the median of some repeats each."""
    steps, repeats = (30, 1) if quick else (200, 5)
    costs = []
    for mode, width in (("rolling", Width.LONG), ("rolling", Width.SHORT), ("async", Width.LONG)):
        for streamed in (True, False):
            for batch in BATCHES:
                found = [
                    uvloop.run(measure(mode, width, batch, streamed, steps)) for _ in range(repeats)
                ]
                middle = statistics.median_low([cost.total for cost in found])
                costs.append(next(cost for cost in found if cost.total == middle))
    return costs


def table(costs: Sequence[Cost]) -> Table:
    drawn = Table(
        *("mode", "strings", "requests", "answers", "new, ms", "decode, ms", "rest, ms"),
        *("a step, ms", "a request, µs", "bytes"),
        title="CPU of the worker, per step (new: per new request)",
    )
    for cost in costs:
        drawn.add_row(
            cost.mode,
            cost.width,
            str(cost.batch),
            "streamed" if cost.streamed else "whole",
            f"{cost.new:.3f}",
            f"{cost.decode:.3f}",
            f"{cost.rest:.3f}",
            f"{cost.total:.3f}",
            f"{1000 * cost.total / cost.batch:.1f}",
            f"{cost.sent:,}",
        )
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.worker_step", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds, without repeats")
    parser.add_argument("--json", type=Path, help="write all figures here")
    given = parser.parse_args()
    console = Console(width=120)
    costs = run(given.quick)
    console.print(table(costs))
    worst = max(cost.total for cost in costs if cost.streamed)
    console.print(f"the largest streamed step: {worst:.2f} ms, goal {GOAL_MS:g} ms")
    if given.json is not None:
        facts = {"command": shlex.join(["python", "-m", "benchmarks.worker_step"]), **machine()}
        result = {"facts": facts, "costs": [asdict(cost) for cost in costs]}
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if worst < GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
