"""A comparison is fair and goes on where it was cut: with scripted engines in real processes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.offline.compare import Comparison, Limits, Measurement, job_of
from benchmarks.offline.loop import Job
from benchmarks.offline.process import SubjectFailed, SubjectProcess
from benchmarks.offline.records import Group, Point, Records
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import ROOT, SUBJECTS, Subject

GROUP = Group("llama-tiny", "float32", 1)
ASKED = Comparison(GROUP, ["a", "b"], [(8, 4), (16, 2)], [1, 3], repeats=2)
ENGINE = "tests.support.offline_engine"
LONG_SECONDS = 60.0


def subject(name: str, **options: Any) -> Subject:
    return Subject(name, ENGINE, "scripted", options=options)


def started(tmp_path: Path, **options: Any) -> SubjectProcess:
    setting = Setting("model", "float32", 1, max_batch=4, max_tokens=64, options=options)
    return SubjectProcess(subject("a"), setting, home=tmp_path, ready_limit=LONG_SECONDS)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """As if the model were written."""
    folder = tmp_path / "llama-tiny-float32"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return tmp_path


def measurement(home: Path, *subjects: Subject, limits: Limits | None = None) -> Measurement:
    return Measurement(
        Records(),
        home,
        limits or Limits(),
        say=lambda line: None,
        save=lambda: None,
        subjects={one.name: one for one in subjects},
        bandwidth=lambda threads: 1e9 * threads,
    )


def test_subjects_take_turns_within_each_repeat_and_lengths_are_finished_one_by_one() -> None:
    turns = list(ASKED.turns())
    assert [name for _, _, name in turns] == ["a", "b"] * 8
    assert [(repeat, point.concurrency) for repeat, point, _ in turns[:8:2]] == [
        (0, 1),
        (0, 3),
        (1, 1),
        (1, 3),
    ]
    assert [point.inputs for _, point, _ in turns] == [8] * 8 + [16] * 8


def test_all_subjects_get_the_same_prompts_and_every_repeat_other_ones() -> None:
    point = Point(8, 4, 3)
    job = job_of(GROUP, point, 0)
    assert job == job_of(GROUP, point, 0)
    assert job.prompts != job_of(GROUP, point, 1).prompts
    assert [len(prompt) for prompt in job.prompts] == [8, 8, 8]
    assert job.outputs == [4, 4, 4]
    assert len({tuple(prompt) for prompt in job.prompts}) == 3


def test_a_whole_comparison_has_every_round_once_and_equal_answers(home: Path) -> None:
    measured = measurement(home, subject("a"), subject("b"))
    measured.run(ASKED, time.monotonic() + LONG_SECONDS)
    records = measured.records
    assert [(one.repeat, one.point, one.subject) for one in records.rounds] == list(ASKED.turns())
    assert records.absents == []
    for ours, theirs in zip(records.rounds[::2], records.rounds[1::2], strict=True):
        assert ours.digests == theirs.digests
    assert [one.subject for one in records.starts] == ["a", "b"]
    assert all(one.peak_mib is not None and one.peak_mib > 1 for one in records.starts)
    assert records.bandwidths[0].bytes_per_s == 1e9


def test_a_second_run_adds_only_what_is_missing(home: Path) -> None:
    measured = measurement(home, subject("a"), subject("b"), subject("c"))
    measured.run(ASKED, time.monotonic() + LONG_SECONDS)
    before = list(measured.records.rounds)
    measured.run(ASKED, time.monotonic() + LONG_SECONDS)
    assert measured.records.rounds == before
    more = replace(ASKED, subjects=["a", "c"], concurrency=[1, 2], repeats=3)
    measured.run(more, time.monotonic() + LONG_SECONDS)
    had = {(one.repeat, one.point, one.subject) for one in before}
    added = [(one.repeat, one.point, one.subject) for one in measured.records.rounds[len(before) :]]
    assert added == [turn for turn in more.turns() if turn not in had]
    assert [(one.subject, one.cold) for one in measured.records.starts] == [
        ("a", True),
        ("b", True),
        ("a", False),
        ("c", True),
    ]


def test_no_round_begins_when_the_time_is_over(home: Path) -> None:
    measured = measurement(home, subject("a"))
    measured.run(replace(ASKED, subjects=["a"]), time.monotonic() - 1)
    assert measured.records == Records()


def test_a_round_that_is_too_slow_is_not_repeated_and_more_is_not_tried(home: Path) -> None:
    measured = measurement(home, subject("a"), limits=Limits(slow=0.0))
    measured.run(replace(ASKED, subjects=["a"]), time.monotonic() + LONG_SECONDS)
    records = measured.records
    assert [one.point for one in records.rounds] == [Point(8, 4, 1), Point(16, 2, 1)]
    assert [one.point for one in records.absents] == [Point(8, 4, 3), Point(16, 2, 3)]
    assert records.absents[0].why == "a round at concurrency 1 took over 0 s"


def test_a_subject_that_breaks_says_why_and_harms_no_other(home: Path) -> None:
    broken = Subject("missing", "tests.support.no_such_engine", "")
    # The warm-up takes 1 and 3 requests, the first round one: the second round is its end.
    measured = measurement(home, broken, subject("dies", ends_at=6), subject("b"))
    measured.run(replace(ASKED, subjects=["missing", "dies", "b"]), time.monotonic() + LONG_SECONDS)
    records = measured.records
    assert [one.subject for one in records.rounds].count("b") == 8
    assert [one.point for one in records.rounds if one.subject == "dies"] == [Point(8, 4, 1)]
    missing, dies = records.absents
    assert (missing.subject, missing.point) == ("missing", None)
    assert "no_such_engine" in missing.why
    assert (dies.subject, dies.point) == ("dies", Point(8, 4, 3))
    assert dies.why == "it ended with code 3: what a library prints the last words"


def test_an_engine_that_gives_short_answers_is_no_subject(home: Path) -> None:
    measured = measurement(home, subject("a", short=1))
    measured.run(replace(ASKED, subjects=["a"]), time.monotonic() + LONG_SECONDS)
    assert measured.records.rounds == []
    assert "request 0 got 3 ids, asked for 4" in measured.records.absents[0].why


def test_a_subject_without_its_environment_says_how_to_get_it(tmp_path: Path) -> None:
    absent = replace(SUBJECTS["llama.cpp"], python=SUBJECTS["llama.cpp"].python.parent / "no")
    setting = Setting("model", "float32", 1, max_batch=1, max_tokens=8, options={})
    with pytest.raises(SubjectFailed, match="not installed: make peers"):
        SubjectProcess(absent, setting, home=tmp_path, ready_limit=1.0)


def test_a_subject_that_hangs_is_ended_at_its_limit(tmp_path: Path) -> None:
    with started(tmp_path, stuck_at=1) as process:
        pid = process.pid
        with pytest.raises(SubjectFailed, match=r"not done after 0 s: .*a library prints"):
            process.run(Job([[1]], [2], 1), limit=0.2)
        assert not Path(f"/proc/{pid}").exists()


def test_a_subject_runs_only_in_its_turn(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        for _ in range(2):
            assert state(process.pid) == "T"  # stopped
            assert process.run(Job([[4]], [2], 1), LONG_SECONDS).answers == [[5, 6]]


def test_a_subject_that_ended_between_its_turns_is_noticed(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        os.kill(process.pid, 9)
        with pytest.raises(SubjectFailed, match="it ended"):
            process.run(Job([[4]], [2], 1), LONG_SECONDS)


def test_no_subject_outlives_a_measurement_that_is_killed(tmp_path: Path) -> None:
    setting = asdict(Setting("model", "float32", 1, max_batch=1, max_tokens=8, options={}))
    code = f"""
import signal
from pathlib import Path
from benchmarks.offline.process import SubjectProcess
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import Subject
subject = Subject("a", {ENGINE!r}, "scripted")
process = SubjectProcess(subject, Setting(**{setting!r}), home=Path("."), ready_limit=60.0)
print(process.pid, flush=True)
signal.pause()
"""
    measuring = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    with measuring:
        assert measuring.stdout is not None
        subject_pid = int(measuring.stdout.readline())
        watched = os.pidfd_open(subject_pid)
        try:
            measuring.kill()
            assert select.select([watched], [], [], LONG_SECONDS)[0]  # readable: it has ended
        finally:
            os.close(watched)


def test_every_subject_is_told_the_same_threads(tmp_path: Path) -> None:
    for one in SUBJECTS.values():
        variables = one.environment(2, tmp_path)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        assert [variables[name] for name in names] == ["2", "2", "2"]
        assert "{home}" not in "".join(variables.values())
    assert SUBJECTS["generate"].python == Path(sys.executable)


def state(pid: int) -> str:
    """T once all its threads are stopped, which follows the signal at once."""
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
