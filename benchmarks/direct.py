"""The engine without a server: the same requests, submitted and polled in one process.

`python -m benchmarks.direct FOLDER` loads the engine as `lmi serve FOLDER` would, then reads one
plan per line (JSON) from standard input and answers each with a line of figures, so that one loaded
engine can take turns with a server.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load import cpu_seconds, summary
from benchmarks.load_client import Measured
from benchmarks.serving import ONE_THREAD
from lmi import engines
from lmi.config import resolve
from lmi.core import Delta, Engine, Finish, GenerationRequest, Sampling
from lmi.launch.bind import bind

POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """As `benchmarks.load.Plan`: `seconds` after a warm-up, or exactly so many requests."""

    prompts: list[str]
    output_tokens: int
    concurrency: int
    seconds: float = 0.0
    warmup: float = 0.0
    requests: int | None = None


class Direct:
    """A closed loop over an engine's protocol, which it drives by blocking polls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ids = itertools.count(1)
        self._measured = Measured()
        self._sent: dict[int, float] = {}
        self._unheard: set[int] = set()
        self._prompts: Iterator[str] = iter(())
        self._sampling = Sampling()

    def run(self, plan: DirectPlan) -> dict[str, Any]:
        """The figures of one plan; nothing is live afterwards."""
        self._prompts = itertools.islice(itertools.cycle(plan.prompts), plan.requests)
        # The server asks for logprobs as well: the lines that it streams show them.
        self._sampling = Sampling(max_new_tokens=plan.output_tokens, ignore_eos=True, logprobs=0)
        window = math.inf
        if plan.requests is None:
            self._fill(plan.concurrency)
            self._drive(time.perf_counter() + plan.warmup)
            window = plan.seconds
        self._measured.clear()
        cpu = cpu_seconds(os.getpid())
        began = time.perf_counter()
        if plan.requests is not None:
            self._fill(plan.concurrency)
        self._drive(began + window)
        took = time.perf_counter() - began
        used = {name: now - cpu[name] for name, now in cpu_seconds(os.getpid()).items()}
        figures = summary(self._measured, took, used, own=0.0)
        self._leave()
        return figures

    def _fill(self, concurrency: int) -> None:
        for _ in range(concurrency):
            self._submit()

    def _submit(self) -> None:
        prompt = next(self._prompts, None)
        if prompt is not None:
            number = next(self._ids)
            self._unheard.add(number)
            self._sent[number] = time.perf_counter()
            self._engine.submit(GenerationRequest(number, prompt, self._sampling))

    def _drive(self, until: float) -> None:
        """Poll until then, or until nothing is live."""
        now = time.perf_counter()
        while self._sent and now < until:
            deltas = self._engine.poll(POLL_SECONDS)
            now = time.perf_counter()
            for delta in deltas:
                self._measured.tokens += len(delta.tokens)
                if delta.request_id in self._unheard:
                    self._unheard.discard(delta.request_id)
                    self._measured.first.append(now - self._sent[delta.request_id])
                if delta.finish is not None:
                    self._over(delta, now)

    def _over(self, delta: Delta, now: float) -> None:
        self._measured.whole.append(now - self._sent.pop(delta.request_id))
        if delta.finish is not Finish.LENGTH:
            self._measured.errors[f"ended by {delta.finish}: {delta.error}"] += 1
        self._submit()

    def _leave(self) -> None:
        self._prompts = iter(())
        for number in list(self._sent):
            self._engine.cancel(number)
        self._drive(math.inf)
        self._unheard.clear()


class DirectProcess:
    """A process that runs plans; see `direct`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, plan: DirectPlan) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(plan)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the direct engine's process ended: {self._process.wait()}")
        figures: dict[str, Any] = json.loads(line)
        return figures


@contextmanager
def direct(folder: Path) -> Iterator[DirectProcess]:
    """A loaded engine in a process of its own, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.direct", str(folder)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )
    with process:
        yield DirectProcess(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    resolution = resolve(Path(sys.argv[1]), os.environ, {}, installed=engines.installed())

    def progress(phase: str, done: int, total: int) -> None:
        """Nobody watches."""

    engine = engines.load(bind(resolution.spec, os.environ, progress), progress)
    runner = Direct(engine)
    gc.freeze()
    try:
        for line in sys.stdin:
            print(json.dumps(runner.run(DirectPlan(**json.loads(line)))), flush=True)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
