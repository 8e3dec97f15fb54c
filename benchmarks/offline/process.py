"""A subject in a process of its own, that works when it is its turn and else is stopped.

All subjects of a comparison are loaded at once, so that their repeats can take turns; but threads
that spin or poll between jobs would disturb the others. So every subject's process group is stopped
(SIGSTOP) except while it loads or runs a job.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.offline.loop import Done, Job
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import ROOT, Subject

LAST_WORDS: Final = 400  # characters of the log that an error shows
READ_BYTES: Final = 1 << 20
STOP_SECONDS: Final = 10.0


class SubjectFailed(RuntimeError):
    """A subject did not load, broke or took too long. The text is for the table."""


class SubjectProcess:
    """Loaded when it is made. Raises SubjectFailed."""

    def __init__(
        self, subject: Subject, setting: Setting, *, home: Path, ready_limit: float
    ) -> None:
        """ready_limit: seconds from the process's start until it is ready."""
        self.subject = subject
        why = subject.missing()
        if why is not None:
            raise SubjectFailed(why)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [str(subject.python), "-m", subject.module, json.dumps(asdict(setting))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=subject.environment(setting.threads, home),
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout.fileno()
        self._unread = b""
        try:
            self.facts: dict[str, str] = self._line(ready_limit)
        except BaseException:
            self.close()
            raise
        self.ready_seconds = time.perf_counter() - began
        self._signal(signal.SIGSTOP)

    def run(self, job: Job, limit: float) -> Done:
        """One job. Raises SubjectFailed, after which the subject is gone."""
        self._signal(signal.SIGCONT)
        try:
            self._input.write(json.dumps(asdict(job)).encode() + b"\n")
            self._input.flush()
            done = Done(**self._line(limit))
        except BrokenPipeError:
            words = self._last_words()
            self.close()
            raise SubjectFailed(f"it ended: {words}") from None
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)
        return done

    @property
    def pid(self) -> int:
        """Of its process, which leads a group of its own."""
        return self._process.pid

    @property
    def memory_mib(self) -> dict[str, float]:
        """Of its process: resident now, and at most so far; nothing when it is gone."""
        fields = {}
        names = {"VmRSS": "resident", "VmHWM": "peak"}
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in names:
                fields[names[name]] = int(value.split()[0]) / 1024  # from KiB
        return fields

    def close(self) -> None:
        """End it and all that it started. Idempotent."""
        self._log.close()
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # what was not yet sent has no reader any more
                    continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, limit: float) -> Any:
        """The next line, parsed."""
        until = time.monotonic() + limit
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._output], [], [], left)[0]:
                raise SubjectFailed(f"not done after {limit:.0f} s: {self._last_words()}")
            data = os.read(self._output, READ_BYTES)
            if not data:
                code = self._process.wait(STOP_SECONDS)
                raise SubjectFailed(f"it ended with code {code}: {self._last_words()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").split("\n")
        said = [line for line in words if line.strip()]
        return " ".join(said[-3:])[-LAST_WORDS:]

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it ended by itself: the next read says so
            return
