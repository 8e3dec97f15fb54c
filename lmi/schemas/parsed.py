"""What a parsed body is, and what a reply does: the seam between the dialects and the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lmi.core import Delta, GenerationRequest, LmiError, Sampling
from lmi.schemas.unknown import Ignored


class Reply(Protocol):
    """Turns the deltas of one request into its answer's bytes. Fed in the order of arrival."""

    @property
    def done(self) -> bool:
        """Whether the answer is complete: nothing may be fed any more."""

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        """The bytes that this delta lets the client read; empty when there are none yet.

        position: which of the request's inputs the delta belongs to. Raises the delta's error as
        long as no byte was released; afterwards an error becomes an event in the stream.
        """

    def fail(self, error: LmiError) -> bytes:
        """End an answer that has begun: the error as an event, then the dialect's terminator."""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """One request of a client, ready for the session.

    inputs: the prompts, texts or token ids, each a generation of its own. streamed: the reply
    releases bytes before it is complete. reply: makes the formatter; one per request. ignored: what
    was left out of account. add_special_tokens: see `GenerationRequest`.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    sampling: Sampling
    streamed: bool
    content_type: str
    reply: Callable[[], Reply]
    truncate_prompt_tokens: int | None = None
    adapter: str | None = None
    ignored: tuple[Ignored, ...] = ()
    add_special_tokens: bool = True

    def generations(self, ids: Sequence[int]) -> list[GenerationRequest]:
        """A generation request for each input. ids: fresh ones, as many as there are inputs."""
        return [
            GenerationRequest(
                id=number,
                prompt=prompt,
                sampling=self.sampling,
                truncate_prompt_tokens=self.truncate_prompt_tokens,
                adapter=self.adapter,
                add_special_tokens=self.add_special_tokens,
            )
            for number, prompt in zip(ids, self.inputs, strict=True)
        ]
