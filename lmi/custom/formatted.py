"""A reply that a user's output formatter writes: it sees the tokens, and its texts are the answer.

The formatter is called for each token, streamed or not, so that both answers have the same text; a
request for several choices has one call, at the end, as nothing can be chosen before. What it
returns is sent as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lmi.core import Delta, Finish, LmiError
from lmi.core import Token as CoreToken
from lmi.custom.api.request_io import RequestInput, TextGenerationOutput, Token
from lmi.custom.formatters import Kind
from lmi.schemas import error_body

_WORDS: Final = {
    Finish.LENGTH: "length",
    Finish.EOS: "eos_token",
    Finish.STOP: "stop_sequence",
    Finish.CANCELLED: "cancelled",
    Finish.ERROR: "error",
}
_NONE: Final = CoreToken(-1, "")  # the last token of a choice that ended without one


class FormattedReply:
    """See `lmi.schemas.Reply`. One output for each of the request's inputs."""

    def __init__(
        self,
        request: RequestInput,
        kind: Kind,
        format: Callable[[tuple[Any, ...]], Any],
        *,
        inputs: int,
        choices: int,
        streamed: bool,
    ) -> None:
        """format: calls the user's function with these arguments; raises LmiError where it does."""
        self._kind = kind
        self._format = format
        self._choices = choices
        self._streamed = streamed
        self._outputs = [TextGenerationOutput(request.request_id, request) for _ in range(inputs)]
        self._texts: list[list[str]] = [[] for _ in range(inputs)]
        self._open = [choices] * inputs
        self._released = False
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        if self._done:
            return b""  # of a generation that goes on after its formatter failed
        if delta.error is not None:
            return self.fail(delta.error)
        try:
            self._read(delta, position)
        except LmiError as error:  # the formatter's
            return self._release() + self.fail(error)
        return self._release()

    def fail(self, error: LmiError) -> bytes:
        if not self._released:
            raise error
        self._done = True
        return error_body(error) + b"\n"

    def _read(self, delta: Delta, position: int) -> None:
        output = self._outputs[position]
        if delta.prompt:
            output.prompt_tokens_details = [_token(each) for each in delta.prompt]
        tokens = delta.tokens
        if delta.finish is not None and not tokens:
            tokens = (_NONE,)
        for token in tokens:
            self._take(output, token, delta, last=token is tokens[-1], position=position)
        if delta.finish is not None:
            self._open[position] -= 1
            if self._choices > 1 and not self._open[position]:
                self._choose(output)
                self._texts[position].append(self._call(output))
            self._done = not any(self._open)

    def _take(
        self,
        output: TextGenerationOutput,
        token: CoreToken,
        delta: Delta,
        last: bool,
        position: int,
    ) -> None:
        """Append a token, and have it formatted where its choice is the only one."""
        ends = last and delta.finish is not None
        shown = _token(token)
        reason = _WORDS[delta.finish] if ends and delta.finish is not None else None
        output.set_next_token(shown, delta.choice, ends, reason)
        output.sequences[delta.choice].cumulative_log_prob += token.logprob or 0.0
        if token.top:
            top = [Token(each.id, each.text, each.logprob) for each in token.top]
            output.set_next_top_tokens(top, delta.choice)
        if self._choices == 1:
            output.finished = ends
            self._texts[position].append(self._call(output))

    def _choose(self, output: TextGenerationOutput) -> None:
        """Say which of several is the best: the one whose tokens were the likeliest."""
        output.finished = True

        def mean(index: int) -> float:
            sequence = output.sequences[index]
            return sequence.cumulative_log_prob / max(1, len(sequence.tokens))

        best = max(output.sequences, key=mean)
        output.set_best_sequence_index(best)
        output.other_sequences_indices = [index for index in output.sequences if index != best]

    def _call(self, output: TextGenerationOutput) -> str:
        if self._kind is Kind.LEGACY:
            return _text(self._format(_legacy(output)))
        return _text(self._format((output,)))

    def _release(self) -> bytes:
        """What may go out: of a stream all there is, else nothing before the end."""
        if not (self._streamed or self._done):
            return b""
        text = "".join(text for texts in self._texts for text in texts)
        for texts in self._texts:
            texts.clear()
        self._released = self._released or bool(text)
        return text.encode()


def _token(token: CoreToken) -> Token:
    return Token(token.id, token.text, token.logprob, token.special or None)


def _legacy(output: TextGenerationOutput) -> tuple[Any, ...]:
    """The arguments of LMI 0.25: token, first, last, details, generated_text, id."""
    sequence = output.sequences[output.best_sequence_index]
    token, _, first, last = sequence.get_next_token()
    details: dict[str, Any] = {}
    text = None
    if last:
        text = "".join(each.text for each in sequence.tokens)
        details = {
            "finish_reason": sequence.finish_reason,
            "generated_tokens": len(sequence.tokens),
            "inputs": getattr(output.input, "input_text", None),
        }
    return token, first, last, details, text, output.request_id


def _text(made: Any) -> str:
    """What a formatter returned, as text; nothing for None."""
    if made is None:
        return ""
    return made if isinstance(made, str) else str(made)
