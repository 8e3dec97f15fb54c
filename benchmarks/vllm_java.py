"""vLLM behind DJL's real Java classes: our handlers, and DJL's own, driven by one Java program.

The program is client and server at once: Java's socket, queues and threads are in the figures, HTTP
is not. Needs a JDK and Maven.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.java import stock
from benchmarks.java.drive import HANDLERS, behind_java
from benchmarks.load import cpu_seconds
from benchmarks.load_dialects import DIALECTS, MODEL
from benchmarks.vllm_rounds import STREAMED
from benchmarks.vllm_subjects import (
    JAVA_ASYNC,
    JAVA_ROLLING,
    MAX_BATCH,
    MAX_MODEL_LEN,
    STOCK_ASYNC,
    STOCK_ROLLING,
    VARIABLES,
)
from tests.support.java_driver import JavaDriver

DTYPES: Final = {"float32": "fp32", "bfloat16": "bf16"}  # as DJL says them
# The stock handlers make a client of S3 when they are imported, which fails without a region.
REGION: Final = {"AWS_DEFAULT_REGION": "us-east-1"}
LONGEST_SECONDS: Final = 120.0  # of a turn


@dataclass(frozen=True, slots=True)
class Behind:
    """mode: of `benchmarks.java.stock`. engine: writes or names the folder with the Python."""

    mode: str
    engine: Callable[[Path], Path]


BEHIND: Final[Mapping[str, Behind]] = {
    JAVA_ROLLING: Behind("rolling", lambda scratch: HANDLERS),
    STOCK_ROLLING: Behind("rolling", stock.unpack),
    JAVA_ASYNC: Behind("async", lambda scratch: HANDLERS),
    STOCK_ASYNC: Behind("async", stock.unpack),
}


class Java:
    """A model behind Java."""

    def __init__(self, driver: JavaDriver, prompts: Sequence[str]) -> None:
        self._driver = driver
        self._prompts = prompts

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        """The figures of one turn, as `benchmarks.load.summary` has them."""
        say = DIALECTS["lmi"].body
        bodies = [json.dumps(say(text, tokens, mode == STREAMED)) for text in self._prompts]
        self.resume()
        worker = self._driver.workers()[0].pid
        before = cpu_seconds(worker)
        seen = self._driver.drive(bodies, concurrency, LONGEST_SECONDS, requests=requests)
        used = {name: now - before[name] for name, now in cpu_seconds(worker).items()}
        self.pause()
        kilotokens = seen["answers"] * tokens / 1000
        firsts = {"p50": seen["first_p50_ms"], "p95": seen["first_p95_ms"]}
        return {
            **seen,
            "tokens_per_s": round(kilotokens * 1000 / seen["seconds"], 1),
            "first_ms": firsts if mode == STREAMED else {},
            "gap_ms": {},
            "errors": {"in Java": seen["errors"]} if seen["errors"] else {},
            "cpu_s_per_1000_tokens": {
                name: round(each / kilotokens, 5) for name, each in used.items() if kilotokens
            },
        }

    def pause(self) -> None:
        """Stop Java and all that it started: they are one group."""
        os.killpg(self._driver.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._driver.process.pid, signal.SIGCONT)


@contextmanager
def java(subject: str, model: Path, dtype: str, prompts: Sequence[str]) -> Iterator[Java]:
    """A model behind Java until the block ends. Raises Unavailable and JavaError."""
    behind = BEHIND[subject]
    options = stock.options(behind.mode, model, DTYPES[dtype], MAX_BATCH, MAX_MODEL_LEN)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / MODEL
        home.mkdir()
        engine = behind.engine(Path(scratch) / "engine")
        with behind_java(home, options, engine=engine, environ=VARIABLES | REGION) as driver:
            found = Java(driver, prompts)
            found.pause()
            try:
                yield found
            finally:
                found.resume()
