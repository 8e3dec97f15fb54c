"""DJL's real Python-engine classes in a JVM of their own, driven from a test.

    with JavaDriver(version, cache=folder, work=folder) as java:
        java.load(model_folder, {"rolling_batch": "auto"})
        answer = java.predict({"inputs": "Hi"})        or java.submit(…) for its future

The JVM gets a short temporary folder of its own: the sockets are in it, and Java kills whatever is
named in the pid files that it finds there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.support.java_build import build

_ANSWER_SECONDS = 60.0  # for one command; a test that waits longer has found a hang
_END_SECONDS = 20.0  # for the JVM to close its model and end
# What the tests' own environment must not bring into the engine.
_OURS = ("OPTION_", "SERVING_", "HF_MODEL", "SAGEMAKER_", "TENSOR_PARALLEL", "ARGS_", "DJL_")


class JavaError(Exception):
    """What Java threw: the chain of its exceptions, outermost first."""

    def __init__(self, causes: Sequence[str], ms: float) -> None:
        super().__init__(" <- ".join(causes))
        self.causes = tuple(causes)
        self.ms = ms


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client of the model server would have got.

    sizes, times: of each chunk, in bytes and milliseconds since the request. trouble: why reading
    ended before the last chunk, None when it did not.
    """

    code: int
    message: str | None
    headers: Mapping[str, str]
    stream: bool
    keys: Sequence[str | None]
    body: str
    sizes: Sequence[int]
    times: Sequence[float]
    trouble: str | None
    ms: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Pending:
    """A request on its way. begun: done at its first chunk, where that was asked for."""

    answer: Future[Answer]
    begun: Future[None] = field(default_factory=Future)


class JavaDriver:
    """One JVM with at most one model (closing one ends a thread pool that DJL shares)."""

    def __init__(
        self,
        version: str,
        cache: Path,
        work: Path,
        *,
        environ: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        log_level: str = "info",
    ) -> None:
        """cache: what DJL_CACHE_DIR names. work: where the log goes. Raises Unavailable."""
        class_path = build(version)
        self.version = version
        self.temporary = Path(tempfile.mkdtemp(prefix="xj"))
        self._log = work / f"java-{self.temporary.name}.log"
        self._ids = itertools.count(1)
        self._waiting: dict[str, Pending | Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        command = ["java", f"-Djava.io.tmpdir={self.temporary}", "-XX:+UseSerialGC", "-Xmx512m"]
        command += [f"-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}", *flags]
        command += ["-cp", class_path, "lmi.driver.Driver"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={
                    "OMP_NUM_THREADS": "1",
                    **clean,
                    "DJL_CACHE_DIR": str(cache),
                    "PYTHON_EXECUTABLE": sys.executable,
                    **(environ or {}),
                },
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        """Java's log, with the engine's lines in it."""
        return self._log.read_text(errors="replace")

    def load(
        self,
        folder: Path,
        options: Mapping[str, str] | None = None,
        *,
        engine: str = "Python",
        seconds: float = _ANSWER_SECONDS,
    ) -> float:
        """Start a model's worker; the milliseconds it took. Raises JavaError."""
        event = self._command(
            seconds, do="load", path=str(folder), engine=engine, options=dict(options or {})
        )
        return float(event["ms"])

    def submit(
        self,
        body: object,
        *,
        properties: Mapping[str, str] | None = None,
        content: Sequence[Mapping[str, object]] = (),
        seconds: float = _ANSWER_SECONDS,
    ) -> Pending:
        """Send a request; body: JSON's object, or text as it is, or None for no `data`."""
        pending = Pending(Future())
        self._send(
            pending,
            do="predict",
            watch=True,
            timeout_ms=int(seconds * 1000),
            **_request(body, properties, content),
        )
        return pending

    def predict(self, body: object, *, seconds: float = _ANSWER_SECONDS, **more: Any) -> Answer:
        """Send a request and wait for all of its answer. Raises JavaError."""
        return self.submit(body, seconds=seconds, **more).answer.result(seconds + 5)

    def predict_until(self, body: object, wanted: str, seconds: float = 60.0) -> float:
        """Ask again and again until the answer is `wanted`; the seconds that it took."""
        started = time.monotonic()
        while True:
            try:
                found = self.predict(body).body
            except JavaError as error:  # Java refuses while it starts the process again
                found = str(error)
            waited = time.monotonic() - started
            if found == wanted:
                return waited
            if waited > seconds:
                raise AssertionError(f"after {waited:.1f} s still: {found}\n{self.log}")
            time.sleep(0.02)

    def batch(self, bodies: Sequence[object], **more: Any) -> list[Answer]:
        """A dynamic batch, answered as one."""
        requests = [_request(body, more.get("properties"), ()) for body in bodies]
        event = self._command(_ANSWER_SECONDS, do="batch", requests=requests)
        return [Answer(**answer) for answer in event["answers"]]

    def drive(
        self, bodies: Sequence[str], streams: int, seconds: float, *, requests: int = 0
    ) -> dict[str, Any]:
        """A closed loop of `streams` clients; see LoadRun.java for the figures.

        requests: so many, in about `seconds`, instead of all that fit into them.
        """
        return self._command(
            seconds + _ANSWER_SECONDS,
            do="drive",
            bodies=list(bodies),
            streams=streams,
            seconds=seconds,
            requests=requests,
        )

    def close_model(self) -> float:
        """Unload the model; the milliseconds it took."""
        return float(self._command(_END_SECONDS, do="close")["ms"])

    def workers(self) -> list[psutil.Process]:
        """The processes below the JVM: the Python worker first, then those it started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def __enter__(self) -> JavaDriver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Close the model and the JVM; what does not end by itself is killed."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(_END_SECONDS)
            self._reader.join(_END_SECONDS)
            if self.process.stdout is not None:
                self.process.stdout.close()
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _command(self, seconds: float, /, **command: object) -> dict[str, Any]:
        done: Future[dict[str, Any]] = Future()
        self._send(done, **command)
        return done.result(seconds)

    def _send(self, waiting: Pending | Future[dict[str, Any]], **command: object) -> None:
        command_id = str(next(self._ids))
        self._waiting[command_id] = waiting
        line = json.dumps({"id": command_id, **command}).encode() + b"\n"
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _read(self) -> None:
        for event in self._events():
            waiting = self._waiting[event.pop("id")]
            what = event.pop("event")
            if what == "begun":
                assert isinstance(waiting, Pending)
                waiting.begun.set_result(None)
                continue
            result: Future[Any] = waiting.answer if isinstance(waiting, Pending) else waiting
            if what == "error":
                result.set_exception(JavaError(event["causes"], event["ms"]))
            elif what == "answer":
                result.set_result(Answer(**event))
            else:
                result.set_result(event)
        for waiting in self._waiting.values():
            result = waiting.answer if isinstance(waiting, Pending) else waiting
            if not result.done():
                result.set_exception(JavaError(["the JVM ended"], 0.0))

    def _events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)


def _request(
    body: object,
    properties: Mapping[str, str] | None,
    content: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    request: dict[str, object] = {
        "properties": {"Content-Type": "application/json", **(properties or {})},
        "content": list(content),
    }
    if body is not None:
        request["body"] = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return request
