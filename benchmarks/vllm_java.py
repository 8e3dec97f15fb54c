"""vLLM behind DJL's real Java classes: our handlers, and DJL's own, driven by one Java program.

The program is client and server at once: Java's socket, queues and threads are in the figures, HTTP
is not. Needs a JDK and Maven.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.java.drive import HANDLERS, behind_java
from benchmarks.load import cpu_seconds
from benchmarks.load_dialects import DIALECTS
from benchmarks.vllm_rounds import STREAMED
from benchmarks.vllm_subjects import MAX_BATCH, MAX_MODEL_LEN, VARIABLES
from tests.support.java_driver import JavaDriver

ROLLING: Final = {"rolling_batch": "vllm", "max_rolling_batch_size": str(MAX_BATCH)}
ASYNC: Final = {
    "entryPoint": "djl_python.lmi_vllm.vllm_async_service",
    "async_mode": "true",
    "rolling_batch": "disable",
    "max_rolling_batch_size": str(MAX_BATCH),
}
LONGEST_SECONDS: Final = 300.0  # of a turn


@dataclass(frozen=True, slots=True)
class Behind:
    """options: what distinguishes the mode. engine: the folder with the Python that Java runs."""

    options: Mapping[str, str]
    engine: Path = HANDLERS


class Java:
    """A model behind Java."""

    def __init__(self, driver: JavaDriver, prompts: Sequence[str]) -> None:
        self._driver = driver
        self._prompts = prompts

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        """The figures of one turn, as `benchmarks.load.summary` has them."""
        say = DIALECTS["lmi"].body
        bodies = [json.dumps(say(text, tokens, mode == STREAMED)) for text in self._prompts]
        worker = self._driver.workers()[0].pid
        before = cpu_seconds(worker)
        seen = self._driver.drive(bodies, concurrency, LONGEST_SECONDS, requests=requests)
        used = {name: now - before[name] for name, now in cpu_seconds(worker).items()}
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


@contextmanager
def java(behind: Behind, model: Path, dtype: str, prompts: Sequence[str]) -> Iterator[Java]:
    """A model behind Java until the block ends. Raises Unavailable and JavaError."""
    options = {
        "model_id": str(model),
        "dtype": dtype,
        "max_model_len": str(MAX_MODEL_LEN),
        "enforce_eager": "true",
        "enable_prefix_caching": "false",
        **behind.options,
    }
    home = model.parent / f"{model.name}-behind-java"
    home.mkdir(exist_ok=True)
    with behind_java(home, options, engine=behind.engine, environ=VARIABLES) as driver:
        yield Java(driver, prompts)
