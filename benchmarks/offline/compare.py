"""Measures a group of subjects: all loaded, then taking turns, round by round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.offline.bandwidth import read_bandwidth
from benchmarks.offline.loop import Job
from benchmarks.offline.process import SubjectFailed, SubjectProcess
from benchmarks.offline.records import Absent, Bandwidth, Group, Point, Records, Round, Start
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import SUBJECTS
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


def compare(
    asked: Comparison,
    records: Records,
    home: Path,
    limits: Limits,
    until: float,
    say: Callable[[str], None],
    save: Callable[[], None],
) -> None:
    """Add the group's missing rounds to the records, as far as time allows.

    home: where models and compiled things are kept. until: of `time.monotonic`; no round begins
    later.
    """
    turns = asked.missing(records)
    if not turns or time.monotonic() >= until:
        return
    group = asked.group
    records.bandwidths.append(Bandwidth(group.threads, read_bandwidth(group.threads)))
    with ExitStack() as running:
        wanted = [name for name in asked.subjects if name in {turn[2] for turn in turns}]
        loaded = _load(asked, wanted, records, home, limits, running, say)
        for name in list(loaded):
            _warm_up(asked, loaded, name, records, limits)
        too_slow: set[tuple[str, int, int, int]] = set()
        for repeat, point, name in turns:
            if time.monotonic() >= until:
                say(f"{group}: no time is left")
                break
            if name in loaded and not _skip(asked, point, name, records, too_slow, limits):
                say(f"{group.shape} {group.dtype} {point} repeat {repeat + 1}: {name}")
                _turn(asked, loaded, (repeat, point, name), records, limits, too_slow)
                save()
        for name, process in loaded.items():
            _note_peak(records, group, name, process.memory_mib["peak"])
    save()


def _load(
    asked: Comparison,
    wanted: Sequence[str],
    records: Records,
    home: Path,
    limits: Limits,
    running: ExitStack,
    say: Callable[[str], None],
) -> dict[str, SubjectProcess]:
    group = asked.group
    folder = write(SHAPES[group.shape], group.dtype, home)
    most = max([inputs + outputs for inputs, outputs in asked.lengths])
    loaded = {}
    for name in wanted:
        subject = SUBJECTS[name]
        setting = Setting(
            model=str(folder),
            dtype=group.dtype,
            threads=group.threads,
            max_batch=max(asked.concurrency),
            max_tokens=most,
            options=dict(subject.options),
        )
        marker = home / f"started-{name}-{group.shape}-{group.dtype}"
        say(f"{group.shape} {group.dtype}: loading {name}")
        records.forget(group, name, None)
        try:
            process = SubjectProcess(subject, setting, home=home, ready_limit=limits.ready)
        except SubjectFailed as error:
            say(f"{name}: {error}")
            records.absent(Absent(group, name, None, str(error)))
            continue
        loaded[name] = running.enter_context(process)
        cold = not marker.exists()
        records.starts.append(Start(group, name, process.ready_seconds, cold, process.facts))
        marker.touch()
    return loaded


def _warm_up(
    asked: Comparison,
    loaded: dict[str, SubjectProcess],
    name: str,
    records: Records,
    limits: Limits,
) -> None:
    """The smallest and the largest batch, so that nobody is measured while it touches its memory
    first or compiles for a size."""
    inputs = asked.lengths[0][0]
    try:
        for concurrency in sorted({1, max(asked.concurrency)}):
            point = Point(inputs, WARM_OUTPUTS, concurrency)
            loaded[name].run(job_of(asked.group, point, -1), limits.job)
    except SubjectFailed as error:
        records.absent(Absent(asked.group, name, None, str(error)))
        del loaded[name]


def _skip(
    asked: Comparison,
    point: Point,
    name: str,
    records: Records,
    too_slow: set[tuple[str, int, int, int]],
    limits: Limits,
) -> bool:
    slow = [
        concurrency
        for other, inputs, outputs, concurrency in too_slow
        if (other, inputs, outputs) == (name, point.inputs, point.outputs)
    ]
    if not slow or point.concurrency < min(slow):
        return False
    if point.concurrency > min(slow):
        why = f"a round at concurrency {min(slow)} took over {limits.slow:.0f} s"
        records.absent(Absent(asked.group, name, point, why))
    return True


def _turn(
    asked: Comparison,
    loaded: dict[str, SubjectProcess],
    turn: tuple[int, Point, str],
    records: Records,
    limits: Limits,
    too_slow: set[tuple[str, int, int, int]],
) -> None:
    repeat, point, name = turn
    job = job_of(asked.group, point, repeat)
    records.forget(asked.group, name, point)
    try:
        done = loaded[name].run(job, limits.job)
    except SubjectFailed as error:
        records.absent(Absent(asked.group, name, point, str(error)))
        del loaded[name]
        return
    records.rounds.append(Round.of(asked.group, name, point, repeat, job, done))
    if done.seconds > limits.slow:
        too_slow.add((name, point.inputs, point.outputs, point.concurrency))


def _note_peak(records: Records, group: Group, name: str, peak: float) -> None:
    for place in reversed(range(len(records.starts))):
        start = records.starts[place]
        if (start.group, start.subject) == (group, name):
            records.starts[place] = replace(start, peak_mib=peak)
            return
