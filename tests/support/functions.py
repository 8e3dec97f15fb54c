"""Start a Function from the text of a model.py, and wait for its answers."""

from __future__ import annotations

import contextlib
import itertools
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmi.core import Call, Function, Head, LmiError
from lmi.custom import FunctionSpec, load_function
from lmi.custom.pool import Pool

PATIENCE = 30.0  # seconds for anything that must come

_numbers = itertools.count(1)


@dataclass
class Answer:
    """What came for one call so far."""

    head: Head | None = None
    pieces: list[bytes] = field(default_factory=list)
    error: LmiError | None = None
    ends: int = 0

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def status(self) -> int:
        assert self.head is not None
        return self.head.status

    @property
    def content_type(self) -> str | None:
        assert self.head is not None
        return dict(self.head.headers).get("content-type")


class Calls:
    """Gives calls to a function and keeps what comes of them."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.answers: dict[int, Answer] = {}

    def start(
        self,
        body: bytes | None = b"x",
        properties: dict[str, str] | None = None,
        function: str = "handle",
    ) -> int:
        """Submit a call; its number."""
        number = next(_numbers)
        self.answers[number] = Answer()
        content = () if body is None else (("data", body),)
        self.function.submit(number, Call(content, properties or {}, function=function))
        return number

    def take(self, timeout: float = 0.5) -> None:
        """Poll once."""
        for piece in self.function.poll(timeout):
            answer = self.answers[piece.call_id]
            assert not answer.ends, "a piece after the last one"
            if piece.head is not None:
                assert answer.head is None, "a second head"
                answer.head = piece.head
            if piece.data:
                answer.pieces.append(piece.data)
            answer.error = piece.error
            answer.ends += piece.last

    def wait(self, *numbers: int) -> Any:
        """The answers of these calls, when they are over."""
        until = time.monotonic() + PATIENCE
        while not all(self.answers[number].ends for number in numbers):
            assert time.monotonic() < until, "an answer did not come"
            self.take()
        found = [self.answers[number] for number in numbers]
        return found[0] if len(found) == 1 else found

    def ask(self, body: bytes | None = b"x", **more: Any) -> Answer:
        """One call, and its answer."""
        answer = self.wait(self.start(body, **more))
        assert isinstance(answer, Answer)
        return answer


def write_model(folder: Path, text: str, name: str = "model.py") -> Path:
    """A file with a user's code in a model's folder; the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(textwrap.dedent(text))
    return folder


@contextlib.contextmanager
def served(folder: Path, text: str, **options: Any) -> Iterator[Calls]:
    """A function over workers that run `text`."""
    options.setdefault("restart_backoff", 0.01)
    function = load_function(FunctionSpec("m", write_model(folder, text), **options))
    try:
        yield Calls(function)
    finally:
        function.close()


def pool_of(calls: Calls) -> Pool:
    """The function as what it is, with its processes."""
    assert isinstance(calls.function, Pool)
    return calls.function
