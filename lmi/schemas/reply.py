"""The two ways to answer, shared by all forms: whole, and token by token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from lmi.core import Delta, Finish, LmiError, Token
from lmi.schemas.assemble import Choice, Transcript
from lmi.schemas.pieces import compose


class WholeReply:
    """An answer that is released at once, when every choice of every input has finished.

    render: one input's object for the body. One input makes the body; several make a list of their
    objects in order, where an input that failed has `render_error`'s object in its place: its
    neighbours keep their answers. Only where all failed is the request itself an error.
    """

    __slots__ = ("_end", "_open", "_render", "_render_error", "_single", "_transcripts")

    def __init__(
        self,
        *,
        inputs: int | None,
        choices: int,
        keep_tokens: bool,
        render: Callable[[Transcript, int], object],
        render_error: Callable[[LmiError], object],
        end: str = "",
    ) -> None:
        """inputs: how many there are in a list of them, None for a single text."""
        self._single = inputs is None
        self._transcripts = [Transcript(choices, keep_tokens) for _ in range(inputs or 1)]
        self._open = len(self._transcripts)
        self._render = render
        self._render_error = render_error
        self._end = end

    @property
    def done(self) -> bool:
        return self._open == 0

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        transcript = self._transcripts[position]
        transcript.add(delta)
        if not transcript.done:
            return b""
        self._open -= 1
        return b"" if self._open else self._body()

    def fail(self, error: LmiError) -> bytes:
        raise error

    def _body(self) -> bytes:
        failed = [
            next((choice.error for choice in transcript.choices if choice.error), None)
            for transcript in self._transcripts
        ]
        first = failed[0]
        if first is not None and all(failed):
            raise first
        objects = [
            self._render(transcript, position) if error is None else self._render_error(error)
            for position, (transcript, error) in enumerate(
                zip(self._transcripts, failed, strict=True)
            )
        ]
        body = objects[0] if self._single else objects
        return (compose(body) + self._end).encode()


class StreamReply(ABC):
    """An answer that is released token by token. Forms say how a token and an end look."""

    __slots__ = ("_done", "_released", "_transcript")

    def __init__(self, choices: int, keep_tokens: bool = False) -> None:
        self._transcript = Transcript(choices, keep_tokens)
        self._released = False
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        choice = self._transcript.add(delta)
        tokens = delta.tokens
        index = delta.choice
        if delta.finish is None and len(tokens) == 1:
            data = self._token(tokens[0], index)
        elif delta.finish is None:
            data = "".join([self._token(token, index) for token in tokens])
        elif delta.error is not None or delta.finish is Finish.ERROR:
            return self.fail(delta.error or LmiError("the generation failed"))
        else:
            data = "".join([self._token(token, index) for token in tokens[:-1]])
            data += self._last(tokens[-1] if tokens else None, choice, index)
            if self._transcript.done:
                self._done = True
                data += self._end()
        if data:
            self._released = True
        return data.encode()

    def fail(self, error: LmiError) -> bytes:
        if not self._released:
            raise error
        self._done = True
        return (self._error(error) + self._end()).encode()

    @abstractmethod
    def _token(self, token: Token, index: int) -> str:
        """A token that is not the last of choice `index`."""

    @abstractmethod
    def _last(self, token: Token | None, choice: Choice, index: int) -> str:
        """The last token of a choice; None where it ended without one."""

    @abstractmethod
    def _error(self, error: LmiError) -> str:
        """An error after the first byte."""

    @abstractmethod
    def _end(self) -> str:
        """The dialect's terminator."""
