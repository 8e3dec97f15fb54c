"""What was measured, in one JSON file that a later run reads and goes on with."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import blake2s
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.offline.loop import Done, Job

DIGEST_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Group:
    """What all rounds of a comparison share."""

    shape: str
    dtype: str
    threads: int


@dataclass(frozen=True, slots=True)
class Point:
    """A workload: `concurrency` requests at once, all of the same lengths in tokens."""

    inputs: int
    outputs: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Round:
    """One job of one subject. digests: of each request's answer, to compare subjects by.

    first_s, whole_s: medians over the requests, from being sent to the first id and to the last.
    decode_tokens_per_s: of one request, without its prompt's time; None at concurrency above 1,
    where prompts are computed between other requests' steps.
    """

    group: Group
    subject: str
    point: Point
    repeat: int
    seconds: float
    tokens_per_s: float
    first_s: float | None
    whole_s: float
    decode_tokens_per_s: float | None
    digests: list[str]

    @classmethod
    def of(
        cls, group: Group, subject: str, point: Point, repeat: int, job: Job, done: Done
    ) -> Round:
        """The figures of a job that is done."""
        firsts = [
            first - sent
            for first, sent in zip(done.first, done.sent, strict=True)
            if first is not None
        ]
        decode = None
        if point.concurrency == 1 and firsts and point.outputs > 1:
            spent = sum(done.ended) - sum([first for first in done.first if first is not None])
            decode = len(job.prompts) * (point.outputs - 1) / spent
        return cls(
            group,
            subject,
            point,
            repeat,
            seconds=done.seconds,
            tokens_per_s=sum(job.outputs) / done.seconds,
            first_s=median(firsts) if firsts else None,
            whole_s=median([e - s for e, s in zip(done.ended, done.sent, strict=True)]),
            decode_tokens_per_s=decode,
            digests=[digest(answer) for answer in done.answers],
        )


@dataclass(frozen=True, slots=True)
class Start:
    """A subject that was loaded. ready_s: from its process's start. peak_mib: resident, at its end.

    cold: whether what it compiles was not there yet from an earlier start.
    """

    group: Group
    subject: str
    ready_s: float
    cold: bool
    facts: dict[str, str]
    peak_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """Why there is no figure; point None: for none of the group's points."""

    group: Group
    subject: str
    point: Point | None
    why: str


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Of memory reads by so many threads."""

    threads: int
    bytes_per_s: float


@dataclass(slots=True)
class Records:
    """All of it. sessions: the facts of each run that added to it."""

    sessions: list[dict[str, str]] = field(default_factory=list)
    bandwidths: list[Bandwidth] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    absents: list[Absent] = field(default_factory=list)

    def repeats_of(self, group: Group, subject: str, point: Point) -> set[int]:
        """The repeats that are measured."""
        return {
            found.repeat
            for found in self.rounds
            if (found.group, found.subject, found.point) == (group, subject, point)
        }

    def absent(self, absent: Absent) -> None:
        """Note why, in the place of what was known of the same point."""
        self.forget(absent.group, absent.subject, absent.point)
        self.absents.append(absent)

    def forget(self, group: Group, subject: str, point: Point | None) -> None:
        """It is being tried anew."""
        same = (group, subject, point)
        self.absents = [one for one in self.absents if (one.group, one.subject, one.point) != same]

    def write(self, path: Path) -> None:
        """In the place of an older file, whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1) + "\n")
        part.rename(path)

    @classmethod
    def read(cls, path: Path) -> Records:
        """Of an earlier run; nothing where there is no file."""
        if not path.exists():
            return cls()
        data: dict[str, Any] = json.loads(path.read_text())
        return cls(
            sessions=data["sessions"],
            bandwidths=[Bandwidth(**one) for one in data["bandwidths"]],
            starts=[Start(**one | _group(one)) for one in data["starts"]],
            rounds=[Round(**one | _group(one) | _point(one)) for one in data["rounds"]],
            absents=[Absent(**one | _group(one) | _point(one)) for one in data["absents"]],
        )

    def session(self, command: str, facts: dict[str, str]) -> None:
        """A run begins."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.sessions.append({"command": command, "time": now, **facts})


def digest(answer: Iterable[int]) -> str:
    """Equal for equal answers."""
    return blake2s(repr(list(answer)).encode(), digest_size=DIGEST_BYTES).hexdigest()


def _group(one: dict[str, Any]) -> dict[str, Group]:
    return {"group": Group(**one["group"])}


def _point(one: dict[str, Any]) -> dict[str, Point | None]:
    return {"point": None if one["point"] is None else Point(**one["point"])}
