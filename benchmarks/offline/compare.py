"""Measures a group of subjects: all loaded, then taking turns, round by round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks.offline.bandwidth import read_bandwidth
from benchmarks.offline.loop import Job
from benchmarks.offline.process import SubjectFailed, SubjectProcess
from benchmarks.offline.records import Absent, Bandwidth, Group, Point, Records, Round, Start
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import SUBJECTS, Subject
from benchmarks.offline.weights import SHAPES, write

FIRST_ID: Final = 3  # below are the special ones
WARM_OUTPUTS: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. slow: a round that takes longer is not repeated, nor is the same subject tried at
    more concurrency with these lengths. job: when a subject counts as hung. ready: to load."""

    slow: float = 60.0
    job: float = 600.0
    ready: float = 600.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to measure in a group. lengths: pairs of tokens in and out, in the order of importance:
    all repeats of one come before the next, so that a run that is cut short has whole tables."""

    group: Group
    subjects: Sequence[str]
    lengths: Sequence[tuple[int, int]]
    concurrency: Sequence[int]
    repeats: int

    def turns(self) -> Iterator[tuple[int, Point, str]]:
        """Repeat, point and subject, in order: A B C A B C, never A A B B."""
        for inputs, outputs in self.lengths:
            for repeat in range(self.repeats):
                for concurrency in self.concurrency:
                    for subject in self.subjects:
                        yield repeat, Point(inputs, outputs, concurrency), subject

    def missing(self, records: Records) -> list[tuple[int, Point, str]]:
        """The turns that no earlier run has taken."""
        return [
            (repeat, point, subject)
            for repeat, point, subject in self.turns()
            if repeat not in records.repeats_of(self.group, subject, point)
        ]


def job_of(group: Group, point: Point, repeat: int) -> Job:
    """The same for every subject; other prompts in every repeat."""
    rng = random.Random(f"{group.shape} {point} {repeat}")
    vocabulary = SHAPES[group.shape].vocabulary
    prompts = [
        [rng.randrange(FIRST_ID, vocabulary) for _ in range(point.inputs)]
        for _ in range(point.concurrency)
    ]
    return Job(prompts, [point.outputs] * point.concurrency, point.concurrency)


@dataclass(slots=True)
class Measurement:
    """Fills records. home: where models and what peers compile are kept. say: told of each round.
    save: called after each."""

    records: Records
    home: Path
    limits: Limits
    say: Callable[[str], None]
    save: Callable[[], None]
    subjects: Mapping[str, Subject] = field(default_factory=lambda: SUBJECTS)
    bandwidth: Callable[[int], float] = read_bandwidth

    def run(self, asked: Comparison, until: float) -> None:
        """Add the rounds that are missing, as far as time allows: none begins after `until`, of
        `time.monotonic`."""
        turns = asked.missing(self.records)
        if not turns or time.monotonic() >= until:
            return
        threads = asked.group.threads
        self.records.bandwidths.append(Bandwidth(threads, self.bandwidth(threads)))
        with ExitStack() as running:
            loaded = self._load(asked, {subject for _, _, subject in turns}, running)
            self._take_turns(asked, turns, loaded, until)
            for name, process in loaded.items():
                self._note_peak(asked.group, name, process.memory_mib.get("peak"))
        self.save()

    def _take_turns(
        self,
        asked: Comparison,
        turns: Sequence[tuple[int, Point, str]],
        loaded: dict[str, SubjectProcess],
        until: float,
    ) -> None:
        group = asked.group
        slowest: dict[tuple[str, int, int], int] = {}  # the least concurrency that was too slow
        for repeat, point, name in turns:
            if time.monotonic() >= until:
                self.say(f"{group.shape} {group.dtype}: no time is left")
                return
            lengths = (name, point.inputs, point.outputs)
            least = slowest.get(lengths)
            if name not in loaded:
                continue
            if least is not None and point.concurrency >= least:
                if point.concurrency > least:
                    why = f"a round at concurrency {least} took over {self.limits.slow:.0f} s"
                    self.records.absent(Absent(group, name, point, why))
                continue
            self.say(f"{group.shape} {group.dtype} {point} repeat {repeat + 1}: {name}")
            seconds = self._turn(group, loaded, (repeat, point, name))
            if seconds is not None and seconds > self.limits.slow:
                slowest[lengths] = point.concurrency
            self.save()

    def _turn(
        self, group: Group, loaded: dict[str, SubjectProcess], turn: tuple[int, Point, str]
    ) -> float | None:
        """The round's seconds; None when the subject broke, which then is loaded no more."""
        repeat, point, name = turn
        job = job_of(group, point, repeat)
        self.records.forget(group, name, point)
        try:
            done = loaded[name].run(job, self.limits.job)
        except SubjectFailed as error:
            self.records.absent(Absent(group, name, point, str(error)))
            del loaded[name]
            return None
        self.records.rounds.append(Round.of(group, name, point, repeat, job, done))
        return done.seconds

    def _load(
        self, asked: Comparison, wanted: AbstractSet[str], running: ExitStack
    ) -> dict[str, SubjectProcess]:
        """Those that can be loaded, warm; why the others can't is in the records."""
        group = asked.group
        folder = write(SHAPES[group.shape], group.dtype, self.home)
        loaded = {}
        for name in asked.subjects:
            if name not in wanted:
                continue
            subject = self.subjects[name]
            setting = Setting(
                model=str(folder),
                dtype=group.dtype,
                threads=group.threads,
                max_batch=max(asked.concurrency),
                max_tokens=max([inputs + outputs for inputs, outputs in asked.lengths]),
                options=dict(subject.options),
            )
            self.say(f"{group.shape} {group.dtype}: loading {name}")
            self.records.forget(group, name, None)
            try:
                process = running.enter_context(
                    SubjectProcess(subject, setting, home=self.home, ready_limit=self.limits.ready)
                )
                self._note_start(group, name, process)
                self._warm_up(asked, process)
            except SubjectFailed as error:
                self.say(f"{name}: {error}")
                self.records.absent(Absent(group, name, None, str(error)))
                continue
            loaded[name] = process
        return loaded

    def _warm_up(self, asked: Comparison, process: SubjectProcess) -> None:
        """The smallest and the largest batch, so that nobody is measured while it touches its
        memory first or compiles for a size."""
        for concurrency in sorted({1, max(asked.concurrency)}):
            point = Point(asked.lengths[0][0], WARM_OUTPUTS, concurrency)
            process.run(job_of(asked.group, point, -1), self.limits.job)

    def _note_start(self, group: Group, name: str, process: SubjectProcess) -> None:
        marker = self.home / f"started-{name}-{group.shape}-{group.dtype}"
        cold = not marker.exists()
        self.records.starts.append(Start(group, name, process.ready_seconds, cold, process.facts))
        marker.touch()

    def _note_peak(self, group: Group, name: str, peak: float | None) -> None:
        starts = self.records.starts
        place = max(
            [at for at, one in enumerate(starts) if (one.group, one.subject) == (group, name)]
        )
        starts[place] = replace(starts[place], peak_mib=peak)
