"""vLLM behind servers: `python -m benchmarks.serving_vllm` (or `make bench-vllm`).

The same library, model and flags offline, behind vLLM's own server and behind ours, at 1, 8 and 32
clients in a closed loop, whole answers and streamed. All are loaded at once and take turns; those
whose turn it is not are stopped. --json adds to the figures that the file holds.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from rich.console import Console

from benchmarks.figures import machine
from benchmarks.random_llama import SIZES, prompts, write_model
from benchmarks.serving import Served, free_port, load, real_time, served
from benchmarks.vllm_java import java
from benchmarks.vllm_offline import offline
from benchmarks.vllm_rounds import MODES, STREAMED, WHOLE, Round, Rounds
from benchmarks.vllm_subjects import (
    HTTP,
    LMI_INVOCATIONS,
    LMI_SERVE,
    OFFLINE,
    SUBJECTS,
    VARIABLES,
    VLLM_SERVE,
    our_server,
    vllm_serve,
)
from benchmarks.vllm_tables import grids

COLUMNS: Final = 200
PROMPT_TOKENS: Final = 64
OUTPUT_TOKENS: Final = 64
DIFFERENT_PROMPTS: Final = 256
# Requests of a round, by model and clients: some 5 s each on two cores where the layers set the
# pace, twice that where the model does.
REQUESTS: Final = {
    "5m": {1: 10, 8: 56, 32: 160},
    "100m": {1: 4, 8: 24, 32: 64},
}
QUICK_REQUESTS: Final = {1: 2, 8: 8, 32: 32}
WARM_UP_TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured in one go, for one model."""

    model: str
    dtype: str
    subjects: tuple[str, ...]
    modes: tuple[str, ...]
    requests: dict[int, int]
    repeats: int

    def turns(self, seed: int) -> Iterator[tuple[int, int, str, str]]:
        """Repeat, clients, mode and subject; within a repeat the subjects come in random order."""
        rng = random.Random(seed)
        for repeat in range(self.repeats):
            for concurrency in self.requests:
                cells = [
                    (mode, subject)
                    for mode in self.modes
                    for subject in self.subjects
                    if subject != OFFLINE or mode == WHOLE
                ]
                rng.shuffle(cells)
                for mode, subject in cells:
                    yield repeat, concurrency, mode, subject


class Runner(Protocol):
    """A loaded subject, which takes its turns."""

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        """The figures of one turn."""


@dataclass(frozen=True, slots=True)
class Http:
    """A server's model, asked in one dialect. prompts: a file of them."""

    server: Served
    dialect: str
    prompts: Path

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        self.server.resume()
        figures = load(
            self.server,
            *("--dialect", self.dialect, "--prompts", str(self.prompts)),
            *("--out", str(tokens), "--concurrency", str(concurrency)),
            *("--requests", str(requests)),
            *([] if mode == STREAMED else ["--whole"]),
        )
        self.server.pause()
        return figures


class Loaded:
    """The subjects of one model, each in processes of its own."""

    def __init__(self, plan: Plan, folder: Path, running: ExitStack) -> None:
        """running: holds what is started."""
        self._plan = plan
        self._folder = folder
        self._running = running
        self._prompts = prompts(folder, DIFFERENT_PROMPTS, PROMPT_TOKENS)
        self._home = Path(running.enter_context(tempfile.TemporaryDirectory()))
        self._file = self._home / "prompts.json"
        self._file.write_text(json.dumps(self._prompts))
        self._servers: dict[str, Served] = {}

    def load(self, subject: str) -> Runner:
        """Start a subject. Raises what its start raises."""
        folder, dtype = self._folder, self._plan.dtype
        if subject == OFFLINE:
            return self._running.enter_context(offline(folder, dtype, self._prompts))
        if subject == VLLM_SERVE:
            port = free_port()
            return self._http(VLLM_SERVE, "completions", vllm_serve(folder, dtype, port), port)
        if subject in (LMI_SERVE, LMI_INVOCATIONS):
            dialect = "completions" if subject == LMI_SERVE else "lmi"
            if LMI_SERVE in self._servers:  # one server answers both
                return Http(self._servers[LMI_SERVE], dialect, self._file)
            port = free_port()
            return self._http(LMI_SERVE, dialect, our_server(folder, dtype, port, self._home), port)
        return self._running.enter_context(java(subject, folder, dtype, self._prompts))

    def _http(self, name: str, dialect: str, command: list[str], port: int) -> Http:
        server = self._running.enter_context(served(command, port, VARIABLES))
        server.pause()
        self._servers[name] = server
        return Http(server, dialect, self._file)


def measure(
    plan: Plan, folder: Path, rounds: Rounds, number: int, save: Callable[[], None]
) -> None:
    """Add the rounds of one model. number: of this run."""
    say = Console(stderr=True, highlight=False).print
    with ExitStack() as running:
        loaded = Loaded(plan, folder, running)
        runners: dict[str, Runner] = {}
        for subject in plan.subjects:
            say(f"{plan.model}: loading {subject}")
            runners[subject] = loaded.load(subject)
            # A batch of each size: nobody is measured while it touches its memory first.
            for concurrency in plan.requests:
                for mode in plan.modes:
                    runners[subject].run(mode, concurrency, concurrency, WARM_UP_TOKENS)
        for repeat, concurrency, mode, subject in plan.turns(number):
            requests = plan.requests[concurrency]
            figures = runners[subject].run(mode, concurrency, requests, OUTPUT_TOKENS)
            if figures["errors"]:
                raise RuntimeError(f"{subject}, {mode}, {concurrency} clients: {figures['errors']}")
            say(
                f"{plan.model} repeat {repeat + 1} of {plan.repeats}: {concurrency} clients, "
                f"{mode}, {subject}: {figures['tokens_per_s']:,.0f} tokens/s"
            )
            rounds.rounds.append(
                Round(plan.model, subject, mode, concurrency, number, repeat, figures)
            )
            save()


def main() -> int:
    given = arguments()
    rounds = Rounds.read(given.json)
    rounds.facts.append(
        {
            "command": shlex.join(["python", "-m", "benchmarks.serving_vllm", *_shown_arguments()]),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "generator": " ".join(real_time()) or "at normal priority: chrt is not permitted",
            "shape": f"{PROMPT_TOKENS} tokens in, {OUTPUT_TOKENS} out, greedy, {given.dtype}",
            **machine(),
        }
    )

    def save() -> None:
        if given.json is not None:
            rounds.write(given.json)
            given.json.with_suffix(".md").write_text(markdown(rounds))

    with tempfile.TemporaryDirectory() as scratch:
        for model in given.models.split(","):
            folder = (given.home or Path(scratch)) / model
            if not (folder / "config.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_model(folder, size=SIZES[model])
            measure(_plan(given, model), folder, rounds, len(rounds.facts), save)
    for grid in grids(rounds):
        Console(width=COLUMNS).print(grid.rich())
    return 0


def _plan(given: argparse.Namespace, model: str) -> Plan:
    clients = [int(each) for each in given.concurrency.split(",")]
    requests = QUICK_REQUESTS if given.quick else REQUESTS[model]
    return Plan(
        model=model,
        dtype=given.dtype,
        subjects=tuple(given.subjects.split(";")),
        modes=tuple(given.modes.split(",")),
        requests={each: requests[each] for each in clients},
        repeats=1 if given.quick else given.repeats,
    )


def markdown(rounds: Rounds) -> str:
    """The facts of each run, then the tables."""
    said = [
        "\n".join([f"* {name}: {value}" for name, value in facts.items()]) for facts in rounds.facts
    ]
    return "\n\n".join([*said, *[grid.markdown() for grid in grids(rounds)]]) + "\n"


def _shown_arguments() -> list[str]:
    """Without the home folder's name, which is this machine's business."""
    shown = list(sys.argv[1:])
    if "--home" in shown:
        shown[shown.index("--home") + 1] = "DIR"
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.serving_vllm", description=__doc__)
    parser.add_argument("--models", default="5m,100m", help=f"of {', '.join(SIZES)}")
    default = ";".join([OFFLINE, *HTTP])
    parser.add_argument("--subjects", default=default, help=f"of {'; '.join(SUBJECTS)}")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--dtype", default="float32", help="as vLLM says it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few requests, no repeats")
    parser.add_argument("--home", type=Path, help="keep the models in this folder")
    parser.add_argument("--json", type=Path, help="add all figures here; the tables beside it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
