"""The two ways to answer, shared by chat and completions: whole, and as a stream of chunks.

An error of one of several prompts is the request's: these dialects have no place for it beside the
answers of the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import orjson

from lmi.core import Delta, Finish, LmiError
from lmi.schemas.assemble import Choice, Transcript
from lmi.schemas.openai.answer import Answer, Counter, Frame
from lmi.schemas.openai.errors import openai_error, openai_status
from lmi.schemas.pieces import text


def failed(delta: Delta) -> LmiError | None:
    """The error that a delta brings, if it does."""
    if delta.finish is not Finish.ERROR:
        return None
    return delta.error or LmiError("the generation failed")


class Whole(ABC):
    """An answer that is released at once, when every choice of every prompt has finished."""

    __slots__ = ("_answer", "_counter", "_open", "_transcripts")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        keep = answer.logprobs is not None
        self._transcripts = [Transcript(answer.choices, keep) for _ in range(answer.inputs)]
        self._open = answer.inputs
        self._counter = Counter()

    @property
    def done(self) -> bool:
        return self._open == 0

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        error = failed(delta)
        if error is not None:
            raise error
        transcript = self._transcripts[position]
        transcript.add(delta)
        if delta.finish is not None:
            self._counter.add(delta.usage, delta.choice)
            if transcript.done:
                self._open -= 1
        return b"" if self._open else self._body()

    def fail(self, error: LmiError) -> bytes:
        raise error

    def _body(self) -> bytes:
        answer = self._answer
        body = {
            "id": answer.id,
            "object": self._kind(),
            "created": answer.created,
            "model": answer.model,
            "choices": [
                {"index": position * answer.choices + place}
                | self._choice(choice, transcript, position)
                for position, transcript in enumerate(self._transcripts)
                for place, choice in enumerate(transcript.choices)
            ],
            "usage": self._counter.object(),
        }
        return orjson.dumps(body) + answer.end.encode()

    @abstractmethod
    def _kind(self) -> str:
        """The answer's `object`."""

    @abstractmethod
    def _choice(self, choice: Choice, transcript: Transcript, position: int) -> dict[str, object]:
        """A choice's object, without its index. position: of its prompt."""


class Stream(ABC):
    """An answer that is released as it comes: a chunk for each delta that says something."""

    __slots__ = (
        "_answer",
        "_counter",
        "_done",
        "_frame",
        "_head",
        "_left",
        "_open",
        "_released",
        "_tail",
    )

    def __init__(self, answer: Answer, frame: Frame) -> None:
        self._answer = answer
        self._frame = frame
        self._counter = Counter()
        self._left = answer.total  # choices that have not finished
        self._open: set[int] = set()  # choices that have begun
        self._released = False
        self._done = False
        # What all chunks have in common is written once: a chunk is made for every token.
        self._head = (
            f'{frame.before}{{"id":"{answer.id}","object":"{self._kind()}",'
            f'"created":{answer.created},"model":{text(answer.model)},"choices":['
        )
        self._tail = ("}]" + (',"usage":null}' if answer.usage else "}")) + frame.after

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        error = failed(delta)
        if error is not None:
            return self.fail(error)
        index = position * self._answer.choices + delta.choice
        data = ""
        if index not in self._open:
            self._open.add(index)
            data = self._opening(delta, index, position)
        data += self._piece(delta, index)
        if delta.finish is not None:
            self._counter.add(delta.usage, delta.choice)
            data += self._closing(delta.finish, index)
            self._left -= 1
            if not self._left:
                data += self._end()
        if data:
            self._released = True
        return data.encode()

    def fail(self, error: LmiError) -> bytes:
        if not self._released:
            raise error
        self._done = True
        event = openai_error(error, openai_status(error), self._prompt_field()).decode()
        return f"{self._frame.before}{event}{self._frame.after}{self._frame.done}".encode()

    def _end(self) -> str:
        self._done = True
        data = ""
        if self._answer.usage:
            usage = orjson.dumps(self._counter.object()).decode()
            data = f'{self._head}],"usage":{usage}}}{self._frame.after}'
        return data + self._frame.done

    @abstractmethod
    def _kind(self) -> str:
        """The chunks' `object`."""

    @abstractmethod
    def _prompt_field(self) -> str:
        """What the dialect calls the prompt."""

    @abstractmethod
    def _opening(self, delta: Delta, index: int, position: int) -> str:
        """What stands before the first text of a choice."""

    @abstractmethod
    def _piece(self, delta: Delta, index: int) -> str:
        """The chunk of what a delta says; empty where it says nothing."""

    @abstractmethod
    def _closing(self, finish: Finish, index: int) -> str:
        """The chunk that says why a choice ended."""
