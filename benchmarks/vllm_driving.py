"""How vLLM is driven: its own AsyncLLM, against our worker that steps it. No server, no HTTP.

Both get the same prompts as token ids, answer the same number of tokens greedily, and hand each
token on as it comes; AsyncLLM leaves out detokenising, ours does it. Each loads in a process of its
own, one after the other; a closed loop keeps so many requests running.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import shown
from benchmarks.random_llama import SIZES, write_model
from benchmarks.vllm_subjects import MAX_BATCH, MAX_MODEL_LEN, VARIABLES, properties

SUBJECTS: Final = ("AsyncLLM", "stepped in our worker")
CONCURRENCY: Final = (1, 8, 32)
PROMPT: Final = 64  # tokens
TOKENS: Final = 64  # of an answer

Turn = Callable[[int, int], tuple[float, list[float]]]
"""(concurrency, requests) to seconds, and each request's time to its first token."""


def prompt(number: int) -> tuple[int, ...]:
    """Ids that every vocabulary has; no two prompts begin alike."""
    return tuple(3 + (number * 31 + place * 7) % 900 for place in range(PROMPT))


def async_llm(model: Path, dtype: str) -> Turn:
    """vLLM's own: its engine core in a process of its own, an output queue per request."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    loop = asyncio.new_event_loop()
    ids = count()

    async def load() -> Any:
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(model),
                dtype=dtype,
                max_model_len=MAX_MODEL_LEN,
                max_num_seqs=MAX_BATCH,
                enforce_eager=True,
                enable_prefix_caching=False,
            )
        )

    engine = loop.run_until_complete(load())
    params = SamplingParams(
        temperature=0.0,
        max_tokens=TOKENS,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )

    async def one(firsts: list[float]) -> None:
        number = next(ids)
        sent, first, tokens = time.perf_counter(), 0.0, 0
        asked = {"prompt_token_ids": list(prompt(number))}
        async for output in engine.generate(asked, params, str(number)):
            first = first or time.perf_counter() - sent
            tokens += len(output.outputs[0].token_ids)
        assert tokens == TOKENS, tokens
        firsts.append(first)

    async def closed(left: list[int], firsts: list[float]) -> None:
        while left[0] > 0:
            left[0] -= 1
            await one(firsts)

    def turn(concurrency: int, requests: int) -> tuple[float, list[float]]:
        firsts: list[float] = []
        left = [requests]

        async def all_of_them() -> None:
            await asyncio.gather(*(closed(left, firsts) for _ in range(concurrency)))

        began = time.perf_counter()
        loop.run_until_complete(all_of_them())
        return time.perf_counter() - began, firsts

    return turn


def stepped(model: Path, dtype: str) -> Turn:
    """Ours, as `lmi serve` loads it."""
    from lmi.config import resolve
    from lmi.core import GenerationRequest, Sampling
    from lmi.engines import BoundSpec, load
    from lmi.launch.runnable import runnable

    folder = Path(tempfile.mkdtemp())
    (folder / "serving.properties").write_text(properties(model, dtype))
    spec = resolve(folder, {}, installed=runnable()).spec
    engine = load(BoundSpec(spec, model), lambda phase, done, total: None)
    ids = count(1)
    sampling = Sampling(max_new_tokens=TOKENS, ignore_eos=True)

    def turn(concurrency: int, requests: int) -> tuple[float, list[float]]:
        sent: dict[int, float] = {}
        firsts: dict[int, float] = {}
        left = requests

        def submit() -> None:
            number = next(ids)
            sent[number] = time.perf_counter()
            engine.submit(GenerationRequest(number, prompt(number), sampling))

        began = time.perf_counter()
        for _ in range(min(concurrency, left)):
            left -= 1
            submit()
        running = len(sent)
        while running:
            for delta in engine.poll(60.0):
                now = time.perf_counter()
                firsts.setdefault(delta.request_id, now - sent[delta.request_id])
                if delta.finish is None:
                    continue
                assert delta.usage is not None
                assert delta.usage.completion_tokens == TOKENS, delta
                running -= 1
                if left > 0:
                    left -= 1
                    running += 1
                    submit()
        return time.perf_counter() - began, list(firsts.values())

    return turn


def measure(subject: str, model: Path, dtype: str, repeats: int, quick: bool) -> dict[str, Any]:
    """In a process of its own: the figures of one subject."""
    began = time.perf_counter()
    turn = (async_llm if subject == SUBJECTS[0] else stepped)(model, dtype)
    found: dict[str, Any] = {"ready": time.perf_counter() - began, "cells": {}}
    turn(8, 16)  # what is compiled or allocated once
    for concurrency in CONCURRENCY:
        requests = max(4, concurrency * (2 if quick else 6))
        speeds, firsts = [], []
        for _ in range(repeats):
            seconds, times = turn(concurrency, requests)
            speeds.append(requests * TOKENS / seconds)
            firsts.append(1000 * statistics.median(times))
        found["cells"][str(concurrency)] = {"tokens_per_s": speeds, "first_ms": firsts}
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """For people: median (least to most of the repeats)."""
    lines = ["| driven by | ready, s | requests at once | tokens/s | first token p50, ms |"]
    lines.append("|---|---|---|---|---|")
    for subject, figures in found.items():
        for concurrency, cell in figures["cells"].items():
            speed = shown(cell["tokens_per_s"])
            first = shown(cell["first_ms"], ",.1f")
            lines.append(
                f"| {subject} | {figures['ready']:.1f} | {concurrency} | {speed} | {first} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="5m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "lmi-models")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    model = asked.home / asked.size
    if not (model / "config.json").is_file():
        write_model(model, size=SIZES[asked.size])
    if asked.subject:
        figures = measure(asked.subject, model, asked.dtype, asked.repeats, asked.quick)
        print("\n" + json.dumps(figures), flush=True)
        os._exit(0)  # vLLM's processes end with this one; taking them apart takes seconds
    found = {}
    for subject in SUBJECTS:
        command = [sys.executable, "-m", "benchmarks.vllm_driving", *sys.argv[1:]]
        output = subprocess.run(
            [*command, "--subject", subject],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **VARIABLES, "VLLM_LOGGING_LEVEL": "ERROR"},
        ).stdout
        found[subject] = json.loads(output.strip().splitlines()[-1])
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
