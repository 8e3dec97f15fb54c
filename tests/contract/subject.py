"""What the suite must know of an engine besides the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from lmi.core import Engine
from tests.contract.observer import Observer


class Decode(Protocol):
    def __call__(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The tokenizer's own decoding."""


@dataclass(frozen=True)
class Subject:
    """make: a new engine with a handful of places (`info.max_batch`) and a short context, so that
    both are easily filled. patience: seconds after which silence means that it forgot. kill: end
    the engine as a crash would, None for one that can't die. poison: a prompt that makes this
    engine fail a request it has accepted, None where there is no such prompt.
    """

    name: str
    make: Callable[[], Engine]
    encode: Callable[[str], tuple[int, ...]]
    decode: Decode
    patience: float = 30.0
    kill: Callable[[Engine], None] | None = None
    poison: str | None = None

    def __str__(self) -> str:
        return self.name

    def prompt(self, length: int) -> tuple[int, ...]:
        """A prompt of so many tokens."""
        ids = self.encode("The quick brown fox jumps over the lazy dog, and then again. ")
        return (ids * -(-length // len(ids)))[:length]

    def observe(self, engine: Engine) -> Observer:
        return Observer(engine, self.patience)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """An engine of the caller's own."""
        engine = self.make()
        try:
            yield engine
        finally:
            engine.close()
