"""What an answer of these dialects shows, whole or streamed: decided once, when the body is read.

The JSON is compact, as OpenAI's own.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

from lmi.core import Finish, Usage

WORDS: Final = {
    Finish.LENGTH: "length",
    Finish.EOS: "stop",
    Finish.STOP: "stop",
    Finish.CANCELLED: "abort",
    Finish.ERROR: "error",
}


class Frame(NamedTuple):
    """What stands around a chunk of a stream, and what ends it."""

    before: str
    after: str
    done: str


EVENTS: Final = Frame("data: ", "\n\n", "data: [DONE]\n\n")
LINES: Final = Frame("", "\n", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """id, created (seconds since 1970), model: as shown.

    inputs, choices: prompts, and answers to each; an answer's index counts through all of them.
    logprobs: None for none, else how many of the likeliest tokens are shown beside each. frame: of
    a stream, None for a whole answer. usage: whether a stream ends with it. end: what follows a
    whole answer. echo: what stands before each prompt's answers; a None is read from the prompt's
    tokens, which the engine shows.
    """

    id: str
    created: int
    model: str
    inputs: int
    choices: int
    logprobs: int | None
    frame: Frame | None
    usage: bool
    end: str = ""
    echo: tuple[str | None, ...] = ()

    @property
    def total(self) -> int:
        """Answers in all."""
        return self.inputs * self.choices


def fresh(prefix: str) -> tuple[str, int]:
    """An id that no other answer has, and the time now in seconds since 1970."""
    return f"{prefix}-{secrets.token_hex(16)}", int(time.time())


class Counter:
    """Adds up the usage of an answer's choices. A prompt counts once, with its first choice."""

    __slots__ = ("cached", "completion", "prompt")

    def __init__(self) -> None:
        self.prompt = self.completion = self.cached = 0

    def add(self, usage: Usage | None, choice: int) -> None:
        """Count a choice that has ended. choice: which of its prompt's."""
        if usage is None:
            return
        self.completion += usage.completion_tokens
        if choice == 0:
            self.prompt += usage.prompt_tokens
            self.cached += usage.cached_tokens

    def object(self) -> dict[str, object]:
        """The object `usage`."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


def word(finish: Finish | None) -> str | None:
    """OpenAI's word for why a choice ended."""
    return None if finish is None else WORDS[finish]
