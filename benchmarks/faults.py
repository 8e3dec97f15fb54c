"""Who notices a killed process, in how many milliseconds, what is left, when requests work again.

    python -m benchmarks.faults [--quick] [--json FILE]

The demo model on LMI-Dist streams to eight clients when one process gets SIGKILL: the engine, the
process that holds the socket (behind Java the Python worker, else the server itself), or Java. The
fronts are our server and DJL's real Java classes in rolling-batch and async mode.

told: from the kill until the last stream that was told has ended, with an error. gone: until
all processes that the dead one had started have ended. served: until the same request as before
gets the same answer as before; it is asked first when no stream is left that may still be told.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import psutil

from benchmarks.figures import machine
from tests.support.java_driver import JavaDriver, JavaError
from tests.support.java_folders import demo_folder, engine_cache
from tests.support.serving import Serving, serving

EMBEDDED: Final = "lmi serve"
ENGINE, HOLDER, JAVA = "engine", "socket's holder", "Java"
STREAMS: Final = 8
GONE_SECONDS: Final = 20.0  # for what a dead process leaves behind
SILENT_SECONDS: Final = 10.0  # a stream that says nothing for so long was not told
SERVED_SECONDS: Final = 60.0
LONG: Final = {
    "inputs": "Return the name of",
    "parameters": {"max_new_tokens": 900, "ignore_eos_token": True},
    "stream": True,
}
SHORT: Final = {"inputs": "Return the name of", "parameters": {"max_new_tokens": 4}}
MODES: Final[Mapping[str, Mapping[str, str]]] = {
    "rolling": {"option.rolling_batch": "auto"},
    "async": {"option.async_mode": "true", "option.rolling_batch": "disable"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """A kill and what came of it; milliseconds, None for what did not come in time.

    answered: of the streams, those that were told.
    """

    front: str
    killed: str
    answered: int
    told_ms: float | None
    gone_ms: float | None
    served_ms: float | None


class Subject(Protocol):
    """A front with the demo model behind it."""

    def processes(self) -> list[psutil.Process]:
        """The process that holds the model's front first, then those below it."""

    def stream(self) -> Callable[[], bool]:
        """Begin a stream and wait for its first bytes; the call waits for its end, and says
        whether the client was told."""

    def served(self) -> bool:
        """Whether the short request gets its answer again, asked until it does."""


@dataclass(frozen=True, slots=True)
class BehindJava:
    java: JavaDriver
    said: str

    def processes(self) -> list[psutil.Process]:
        return self.java.workers()

    def stream(self) -> Callable[[], bool]:
        pending = self.java.submit(LONG, seconds=SILENT_SECONDS)
        pending.begun.result(SERVED_SECONDS)

        def told() -> bool:
            try:
                return pending.answer.result(2 * SILENT_SECONDS).trouble is None
            except JavaError:  # the JVM is gone, and the client's connection with it
                return True

        return told

    def served(self) -> bool:
        try:
            self.java.predict_until(SHORT, self.said, SERVED_SECONDS)
        except AssertionError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Embedded:
    server: Serving
    said: str

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(self.server.process.pid), *self.server.engine_processes()]

    def stream(self) -> Callable[[], bool]:
        begun, ended = threading.Event(), threading.Event()

        def read() -> None:
            url = f"{self.server.url}/invocations"
            try:
                with httpx.stream("POST", url, json=LONG, timeout=SILENT_SECONDS) as answer:
                    for _ in answer.iter_bytes():
                        begun.set()
            except httpx.ReadTimeout:
                return
            except httpx.TransportError:
                pass  # a closed connection tells the client too
            ended.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        begun.wait(SERVED_SECONDS)

        def told() -> bool:
            reader.join(2 * SILENT_SECONDS)
            return ended.is_set()

        return told

    def served(self) -> bool:
        started = time.monotonic()
        while time.monotonic() - started < SERVED_SECONDS:
            if ask(self.server) == self.said:
                return True
            time.sleep(0.02)
        return False


def ask(server: Serving) -> str:
    try:
        return httpx.post(f"{server.url}/invocations", json=SHORT, timeout=30).text
    except httpx.TransportError as error:
        return str(error)


@contextmanager
def embedded(root: Path) -> Iterator[Subject]:
    folder = demo_folder(root / "model", MODES["rolling"])
    with serving(root / "log", str(folder)) as server:
        yield Embedded(server, ask(server))


@contextmanager
def behind_java(root: Path, version: str, mode: str) -> Iterator[Subject]:
    folder = demo_folder(root / "model", MODES[mode])
    cache = engine_cache(root, version)
    with JavaDriver(version, cache, root, log_level="warn") as java:
        java.load(folder)
        yield BehindJava(java, java.predict(SHORT).body)


def measure(front: str, killed: str, subject: Subject) -> Row:
    """Kill one process under eight streams."""
    holder, *below = subject.processes()
    engine = max(below, key=lambda process: process.memory_info().rss)
    if killed == JAVA:
        assert isinstance(subject, BehindJava)
        victim, heirs = psutil.Process(subject.java.process.pid), [holder, *below]
    elif killed == ENGINE:
        victim, heirs = engine, engine.children(recursive=True)
    else:
        victim, heirs = holder, below
    streams = [subject.stream() for _ in range(STREAMS)]
    started = time.monotonic()
    victim.send_signal(signal.SIGKILL)
    with ThreadPoolExecutor(STREAMS) as clients:
        ends = [clients.submit(_told, stream, started) for stream in streams]
        _, alive = psutil.wait_procs(heirs, GONE_SECONDS)
        gone = None if alive else _since(started)
    told = [end.result() for end in ends if end.result() is not None]
    over = killed == JAVA or (killed == HOLDER and isinstance(subject, Embedded))
    served = _since(started) if not over and subject.served() else None
    return Row(front, killed, len(told), max(told, default=None), gone, served)


def _told(stream: Callable[[], bool], started: float) -> float | None:
    return _since(started) if stream() else None


def _since(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 1)


CASES: Final = (
    (EMBEDDED, ENGINE),
    (EMBEDDED, HOLDER),
    ("0.34.0 rolling", ENGINE),
    ("0.34.0 rolling", HOLDER),
    ("0.34.0 rolling", JAVA),
    ("0.34.0 async", ENGINE),
    ("0.34.0 async", HOLDER),
    ("0.34.0 async", JAVA),
    ("0.25.0 rolling", ENGINE),
    ("0.25.0 rolling", HOLDER),
)
QUICK: Final = (CASES[0], CASES[2], CASES[5])


def row(front: str, killed: str) -> Row:
    """One case, with everything started for it alone."""
    with tempfile.TemporaryDirectory(prefix="xf") as scratch:
        root = Path(scratch)
        version, _, mode = front.partition(" ")
        started = embedded(root) if front == EMBEDDED else behind_java(root, version, mode)
        with started as subject:
            return measure(front, killed, subject)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| front | killed | streams told | all told, ms | nothing left, ms | served again, ms |",
        "|---|---|---|---|---|---|",
    ]
    for each in rows:
        figures = [_shown(ms) for ms in (each.told_ms, each.gone_ms, each.served_ms)]
        told = f"{each.answered} of {STREAMS}"
        lines.append(f"| {' | '.join([each.front, each.killed, told, *figures])} |")
    return "\n".join(lines) + "\n"


def _shown(ms: float | None) -> str:
    return "–" if ms is None else f"{ms:,.0f}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a killed process does to its clients.")
    parser.add_argument("--quick", action="store_true", help="engines only, one of each front")
    parser.add_argument("--json", type=Path, help="write the figures here, the table beside it")
    arguments = parser.parse_args(words)
    rows = []
    for front, killed in QUICK if arguments.quick else CASES:
        rows.append(row(front, killed))
        sys.stdout.write(table(rows).splitlines()[-1] + "\n")
        sys.stdout.flush()
    sys.stdout.write("\n" + table(rows))
    if arguments.json:
        found: dict[str, Any] = {"machine": machine(), "rows": [asdict(each) for each in rows]}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
        arguments.json.with_suffix(".md").write_text(table(rows))


if __name__ == "__main__":
    main()
