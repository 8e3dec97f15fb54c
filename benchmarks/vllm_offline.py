"""vLLM without a server: `LLM.generate` on as many prompts at a time as a server has clients.

`python -m benchmarks.vllm_offline MODEL DTYPE` loads the library in one process, which spares it
every message between processes, then answers each plan (a line of JSON on standard input) with a
line of figures, so that it can take turns with servers.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import cpu_seconds, summary
from benchmarks.load_client import Measured
from benchmarks.vllm_subjects import MAX_BATCH, MAX_MODEL_LEN, VARIABLES


@dataclass(frozen=True, slots=True)
class OfflinePlan:
    """`requests` answers of exactly `tokens` tokens, `concurrency` at a time."""

    prompts: list[str]
    tokens: int
    concurrency: int
    requests: int


class Offline:
    """The library in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], prompts: Sequence[str]) -> None:
        self._process = process
        self._prompts = list(prompts)

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        """The figures of one turn; it gives whole answers, whatever the mode."""
        assert self._process.stdin is not None
        plan = OfflinePlan(self._prompts, tokens, concurrency, requests)
        self.resume()
        self._process.stdin.write(json.dumps(asdict(plan)) + "\n")
        self._process.stdin.flush()
        figures = self.read()
        self.pause()
        return figures

    def read(self) -> dict[str, Any]:
        """The next line that it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the offline engine's process ended: {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def offline(model: Path, dtype: str, prompts: Sequence[str]) -> Iterator[Offline]:
    """The library, loaded, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.vllm_offline", str(model), dtype],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            **VARIABLES,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        },
    )
    try:
        found = Offline(process, prompts)
        found.read()
        found.pause()
        yield found
    finally:
        process.kill()
        process.communicate()


def run(llm: Any, plan: OfflinePlan) -> dict[str, Any]:
    """The figures of one plan."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=plan.tokens, ignore_eos=True)
    measured = Measured()
    cpu = cpu_seconds(os.getpid())
    began = time.perf_counter()
    for place in range(0, plan.requests, plan.concurrency):
        sent = time.perf_counter()
        size = min(plan.concurrency, plan.requests - place)
        prompts = [
            plan.prompts[number % len(plan.prompts)] for number in range(place, place + size)
        ]
        answers = llm.generate(prompts, params, use_tqdm=False)
        for answer in answers:
            count = len(answer.outputs[0].token_ids)
            measured.tokens += count
            measured.whole.append(time.perf_counter() - sent)
            if count != plan.tokens:
                measured.errors[f"{count} tokens instead of {plan.tokens}"] += 1
    took = time.perf_counter() - began
    used = {name: now - cpu[name] for name, now in cpu_seconds(os.getpid()).items()}
    return summary(measured, took, used, own=0.0)


def main() -> None:
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library prints there
    from vllm import LLM

    model, dtype = sys.argv[1:]
    library: Any = LLM  # its types want a literal for the dtype
    llm = library(
        model=model,
        dtype=dtype,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=MAX_BATCH,
        enforce_eager=True,
        enable_prefix_caching=False,
    )
    gc.freeze()
    print(json.dumps({"ready": True}), file=pipe, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(llm, OfflinePlan(**json.loads(line)))), file=pipe, flush=True)


if __name__ == "__main__":
    main()
