"""What formatters get and give: a request's text and parameters, and what was generated for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lmi.custom.api.next_token import NextToken


class Token:
    """A generated token.

    id: -1 where it stands for an error. log_prob: natural logarithm of its probability.
    special_token: whether it is no text. error_msg: why the request failed.
    """

    def __init__(
        self,
        id: int,
        text: str,
        log_prob: float | None = None,
        special_token: bool | None = None,
        error_msg: str | None = None,
    ) -> None:
        self.id = id
        self.text = text
        self.log_prob = log_prob
        self.special_token = special_token
        self.error_msg = error_msg
        self.request_id: int | None = None

    def __repr__(self) -> str:
        return f"Token(id={self.id}, text={self.text!r}, log_prob={self.log_prob})"

    def as_dict(self) -> dict[str, Any]:
        """As LMI's schema has it."""
        out: dict[str, Any] = {"id": self.id, "text": self.text, "log_prob": self.log_prob}
        if self.special_token:
            out["special_token"] = self.special_token
        if self.error_msg:
            out["error_msg"] = self.error_msg
        return out

    def as_tgi_dict(self) -> dict[str, Any]:
        """As TGI's schema has it."""
        out: dict[str, Any] = {"id": self.id, "text": self.text, "logprob": self.log_prob}
        if self.special_token:
            out["special"] = self.special_token
        return out


@dataclass
class Sequence:
    """One answer while it grows. It is read token by token: `get_next_token` goes on where it was.

    top_tokens: at each place the most likely tokens, where they were asked for.
    """

    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[list[Token]] = field(default_factory=list)
    cumulative_log_prob: float = 0.0
    finish_reason: str | None = None
    stop_reason: str | None = None
    _last_token_index: int | None = None
    _next: int = field(default=0, init=False, repr=False)
    _next_top: int = field(default=0, init=False, repr=False)

    def set_next_token(self, token: Token, is_last_token: bool = False) -> None:
        """Append a token."""
        self.tokens.append(token)
        if is_last_token:
            self._last_token_index = len(self.tokens) - 1

    def set_next_top_tokens(self, top_tokens: list[Token]) -> None:
        """Append the most likely tokens of a place."""
        self.top_tokens.append(top_tokens)

    def has_next_token(self) -> bool:
        """Whether there is a token that was not read."""
        return self._next < len(self.tokens)

    def has_next_top_tokens(self) -> bool:
        """Whether there are top tokens that were not read."""
        return self._next_top < len(self.top_tokens)

    def get_next_token(self) -> NextToken:
        """The next token that was not read: (token, index, first, last).

        (None, -1, False, False) where there is none.
        """
        if not self.has_next_token():
            return NextToken(None, -1, False, False)
        index = self._next
        self._next += 1
        return NextToken(self.tokens[index], index, index == 0, index == self._last_token_index)

    def get_last_token(self) -> Token | None:
        """The last token of the whole answer; None before it is there."""
        return None if self._last_token_index is None else self.tokens[self._last_token_index]

    def get_next_top_tokens(self) -> list[Token] | None:
        """The next top tokens that were not read, or None."""
        if not self.has_next_top_tokens():
            return None
        self._next_top += 1
        return self.top_tokens[self._next_top - 1]


@dataclass
class RequestInput:
    """A request. parameters: of its body. server_parameters: what the engine is told, where an
    input formatter wants to say it itself. tgi_compat: whether the answer is TGI's."""

    request_id: int = 0
    client_request_id: str | None = None
    output_formatter: Callable[..., Any] | str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    server_parameters: dict[str, Any] = field(default_factory=dict)
    tgi_compat: bool = False


@dataclass
class TextInput(RequestInput):
    """A request for text. input_text: the prompt, or a list of them. adapters: the name of a LoRA.
    tokenizer: the model's, where the engine has one."""

    input_text: str | list[str] | None = None
    adapters: Any = None
    tokenizer: Any = None


@dataclass
class RequestOutput:
    """What there is for a request. finished: whether nothing comes any more."""

    request_id: int
    input: RequestInput
    finished: bool = False


@dataclass
class TextGenerationOutput(RequestOutput):
    """The text that was generated for a request, so far.

    sequences: by index; several with n, best_of or beams. best_sequence_index: the one to answer
    with. other_sequences_indices: of those that the request asked for besides.
    prompt_tokens_details: the prompt's tokens, where they were asked for.
    """

    sequences: dict[int, Sequence] = field(default_factory=dict)
    best_sequence_index: int = 0
    prompt_tokens_details: list[Token] = field(default_factory=list)
    other_sequences_indices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sequences.setdefault(self.best_sequence_index, Sequence())

    def set_next_token(
        self,
        token: Token,
        sequence_index: int = 0,
        is_last_token: bool = False,
        finish_reason: str | None = None,
    ) -> None:
        """Append a token to a sequence, which begins with it if need be."""
        sequence = self.sequences.setdefault(sequence_index, Sequence())
        sequence.set_next_token(token, is_last_token)
        if finish_reason:
            sequence.finish_reason = finish_reason

    def set_next_top_tokens(self, top_tokens: list[Token], sequence_index: int = 0) -> None:
        """Append the most likely tokens of a place."""
        self.sequences.setdefault(sequence_index, Sequence()).set_next_top_tokens(top_tokens)

    def set_best_sequence_index(self, sequence_index: int) -> None:
        """Say which sequence is the answer."""
        self.best_sequence_index = sequence_index

    def set_finish_reason(self, finish_reason: str, sequence_index: int = 0) -> None:
        """Say why a sequence ended. Raises KeyError for one that never began."""
        self.sequences[sequence_index].finish_reason = finish_reason

    def get_tokens_as_dict(self, sequence_index: int = 0) -> list[dict[str, Any]]:
        """A sequence's tokens, as the request's schema has them."""
        return self._dicts(self.sequences[sequence_index].tokens)

    def get_prompt_tokens_as_dict(self) -> list[dict[str, Any]]:
        """The prompt's tokens, as the request's schema has them."""
        return self._dicts(self.prompt_tokens_details)

    def get_top_tokens_as_dict(self, sequence_index: int = 0) -> list[list[dict[str, Any]]]:
        """A sequence's top tokens, as the request's schema has them."""
        return [self._dicts(tokens) for tokens in self.sequences[sequence_index].top_tokens]

    def _dicts(self, tokens: list[Token]) -> list[dict[str, Any]]:
        if self.input.tgi_compat:
            return [token.as_tgi_dict() for token in tokens]
        return [token.as_dict() for token in tokens]
