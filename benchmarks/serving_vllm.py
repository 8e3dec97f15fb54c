"""vLLM behind servers: `python -m benchmarks.serving_vllm` (or `make bench-vllm`).

The same library, model and flags offline, behind vLLM's own server and behind ours, at 1, 8 and 32
clients in a closed loop, whole answers and streamed. All are loaded at once and take turns; those
whose turn it is not are stopped. --json adds to the figures that the file holds.
"""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from benchmarks.figures import machine
from benchmarks.random_llama import SIZES, write_model
from benchmarks.serving import real_time
from benchmarks.vllm_loaded import BROKEN, PROMPT_TOKENS, Loaded, Runner
from benchmarks.vllm_rounds import MODES, WHOLE, Round, Rounds
from benchmarks.vllm_subjects import HTTP, OFFLINE, SUBJECTS
from benchmarks.vllm_tables import grids

COLUMNS: Final = 200
OUTPUT_TOKENS: Final = 64
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


class WrongAnswers(RuntimeError):
    """A turn had answers that are errors, or of another length."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a turn measures."""

    subject: str
    mode: str
    concurrency: int


@dataclass(slots=True)
class Measurement:
    """Takes the turns of one model. number: of this run. save: called after each turn."""

    plan: Plan
    rounds: Rounds
    number: int
    say: Callable[[str], None]
    save: Callable[[], None]

    def run(self, folder: Path) -> None:
        """Add the rounds of all subjects that can be loaded; the facts say which can't."""
        plan = self.plan
        with ExitStack() as running:
            loaded = Loaded(folder, plan.dtype, running)
            runners: dict[str, Runner] = {}
            for subject in plan.subjects:
                self.say(f"{plan.model}: loading {subject}")
                try:
                    runners[subject] = loaded.load(subject)
                    self._warm_up(runners[subject])
                except BROKEN as error:
                    self._without(runners, subject, error)
            for repeat, concurrency, mode, subject in plan.turns(self.number):
                if subject not in runners:
                    continue
                try:
                    self._turn(runners[subject], Cell(subject, mode, concurrency), repeat)
                except BROKEN as error:
                    self._without(runners, subject, error)

    def _warm_up(self, runner: Runner) -> None:
        """A batch of each size: nobody is measured while it touches its memory first."""
        for concurrency in self.plan.requests:
            for mode in self.plan.modes:
                runner.run(mode, concurrency, concurrency, WARM_UP_TOKENS)

    def _turn(self, runner: Runner, cell: Cell, repeat: int) -> None:
        requests = self.plan.requests[cell.concurrency]
        figures = runner.run(cell.mode, cell.concurrency, requests, OUTPUT_TOKENS)
        if figures["errors"]:
            raise WrongAnswers(f"{cell}: {figures['errors']}")
        self.say(
            f"{self.plan.model} repeat {repeat + 1} of {self.plan.repeats}: "
            f"{cell.concurrency} clients, {cell.mode}, {cell.subject}: "
            f"{figures['tokens_per_s']:,.0f} tokens/s"
        )
        self.rounds.rounds.append(
            Round(
                self.plan.model,
                cell.subject,
                cell.mode,
                cell.concurrency,
                self.number,
                repeat,
                figures,
            )
        )
        self.save()

    def _without(self, runners: dict[str, Runner], subject: str, error: BaseException) -> None:
        """Go on without a subject. The file keeps what kind of error it was: its text may hold this
        machine's paths."""
        runners.pop(subject, None)
        self.say(f"{self.plan.model}: without {subject} from here on: {error!r}")
        facts = self.rounds.facts[-1]
        facts[f"without {subject}"] = f"{self.plan.model}: {type(error).__name__}"


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, _leave)
    rounds = Rounds.read(given.json)
    say = Console(stderr=True, highlight=False).print
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
            plan = _plan(given, model)
            Measurement(plan, rounds, len(rounds.facts), say, save).run(folder)
    for grid in grids(rounds):
        Console(width=COLUMNS).print(grid.rich())
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    """End what was started, as an interrupt does: what was measured is in the file."""
    sys.exit(128 + number)


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
