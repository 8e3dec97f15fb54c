"""The assembler that all forms share: deltas in, the state of each choice out.

Text is kept as pieces and joined once, at the end; tokens are kept where the answer lists them.
"""

from __future__ import annotations

from lmi.core import Delta, Finish, LmiError, Token, Usage


class Choice:
    """What one choice has brought so far."""

    __slots__ = ("count", "error", "finish", "pieces", "tokens", "usage")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.tokens: list[Token] = []
        self.count = 0
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.error: LmiError | None = None

    @property
    def text(self) -> str:
        """The visible text: a join, so not for every token."""
        return "".join(self.pieces)


class Transcript:
    """The choices of one generation. expected: how many choices will finish."""

    __slots__ = ("_open", "choices", "keep_tokens", "prompt")

    def __init__(self, expected: int, keep_tokens: bool) -> None:
        self.choices = [Choice() for _ in range(expected)]
        self.prompt: tuple[Token, ...] = ()
        self.keep_tokens = keep_tokens
        self._open = expected

    @property
    def done(self) -> bool:
        """Whether every choice has finished."""
        return self._open == 0

    def add(self, delta: Delta) -> Choice:
        """Take a delta in; its choice, as it is now."""
        choice = self.choices[delta.choice]
        tokens = delta.tokens
        if len(tokens) == 1:
            choice.count += 1
            choice.pieces.append(tokens[0].text)
        else:
            choice.count += len(tokens)
            choice.pieces += [token.text for token in tokens]
        if self.keep_tokens:
            choice.tokens.extend(tokens)
        if delta.prompt:
            self.prompt = delta.prompt
        if delta.finish is not None:
            choice.finish = delta.finish
            choice.usage = delta.usage
            choice.error = delta.error
            self._open -= 1
        return choice
