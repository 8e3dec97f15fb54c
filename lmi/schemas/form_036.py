"""Form "0.36": what the reference's rolling batch answers, and TGI's variant of it.

Field names and their order, separators and line ends are a contract; the golden files hold them.
"""

from __future__ import annotations

from dataclasses import replace

from lmi.core import Finish, LmiError, Token
from lmi.schemas.assemble import Choice, Transcript
from lmi.schemas.body import LmiParameters
from lmi.schemas.dialect import Dialect
from lmi.schemas.pieces import compose, number, text
from lmi.schemas.reply import StreamReply
from lmi.schemas.shape import Shape

# vLLM says "stop" for an end-of-sequence token and for a stop string; the reference maps that.
WORDS = {
    Finish.LENGTH: "length",
    Finish.EOS: "eos_token",
    Finish.STOP: "eos_token",
    Finish.CANCELLED: "abort",
    Finish.ERROR: "error",
}

_ERROR_CODE = 400  # what the reference writes into the object of a failed answer


def temperature(parameters: LmiParameters) -> float:
    """A temperature alone enables sampling; do_sample=false wins over it."""
    if parameters.do_sample is False:
        return 0.0
    if parameters.temperature is not None:
        return parameters.temperature
    return 1.0 if parameters.do_sample else 0.0


def render(shape: Shape, transcript: Transcript, position: int) -> object:
    """The object of one input's whole answer."""
    best = transcript.choices[0]
    answer: dict[str, object] = {"generated_text": shape.before(position) + best.text}
    if shape.choices > 1:
        details: dict[str, object] = {"inputs": shape.prompts[position]}
        details |= _sequence(shape, transcript, best)
        details["best_of_sequences"] = [
            _sequence(shape, transcript, choice)
            | {"generated_text": shape.before(position) + choice.text}
            for choice in transcript.choices[1:]
        ]
        answer["details"] = details
    elif shape.details:
        details = {
            "finish_reason": shape.word(best.finish),
            "generated_tokens": best.count,
            "inputs": shape.prompts[position],
            "tokens": [shape.token(token) for token in best.tokens],
        }
        answer["details"] = details | _extras(shape, transcript, best)
    return answer


def render_tgi(shape: Shape, transcript: Transcript, position: int) -> object:
    """TGI's variant: a list of one."""
    answer = render(shape, transcript, position)
    return answer if shape.listed else [answer]


def render_error(error: LmiError) -> object:
    """The object of an input that failed while its neighbours did not."""
    return {
        "generated_text": None,
        "error": str(error),
        "code": _ERROR_CODE,
        "details": {"finish_reason": "error"},
    }


def _sequence(shape: Shape, transcript: Transcript, choice: Choice) -> dict[str, object]:
    sequence: dict[str, object] = {
        "finish_reason": shape.word(choice.finish),
        "generated_tokens": choice.count,
        "tokens": [shape.token(token) for token in choice.tokens],
    }
    return sequence | _extras(shape, transcript, choice)


def _extras(shape: Shape, transcript: Transcript, choice: Choice) -> dict[str, object]:
    extras: dict[str, object] = {}
    if shape.prefill:
        extras["prefill"] = [shape.token(token) for token in transcript.prompt]
    if shape.top_tokens:
        extras["top_tokens"] = [shape.top(token) for token in choice.tokens]
    return extras


class JsonLines(StreamReply):
    """A line for each token; the last one also has the text and, if asked for, details."""

    __slots__ = ("_after", "_before", "_logprob", "_shape", "_start")

    def __init__(self, shape: Shape, before: str = "", after: str = "\n") -> None:
        # The top tokens are shown at the end, so the tokens must be kept until then.
        super().__init__(1, keep_tokens=shape.details and shape.top_tokens)
        self._shape = shape
        self._before = before + '{"token": '
        self._start = self._before + '{"id": '
        self._logprob = f', "{shape.logprob_key}": '
        self._after = after

    def _token(self, token: Token, index: int) -> str:
        if token.special and self._shape.mark_special:
            return f"{self._before}{self._object(token)}}}{self._after}"
        # One format for the whole line: this is done for every token of every stream.
        return (
            f'{self._start}{token.id}, "text": {text(token.text)}'
            f"{self._logprob}{number(token.logprob)}}}}}{self._after}"
        )

    def _object(self, token: Token) -> str:
        special = ', "special": true' if self._shape.mark_special and token.special else ""
        return (
            f'{{"id": {token.id}, "text": {text(token.text)}'
            f"{self._logprob}{number(token.logprob)}{special}}}"
        )

    def _last(self, token: Token | None, choice: Choice, index: int) -> str:
        shape = self._shape
        # The reference's own stand-in for an end that has no token.
        shown = self._object(Token(-1, "") if token is None else token)
        details = ""
        if shape.details:
            fields: dict[str, object] = {
                "finish_reason": shape.word(choice.finish),
                "generated_tokens": choice.count,
                "inputs": shape.prompts[0],
            }
            fields |= _extras(shape, self._transcript, choice)
            details = f', "details": {compose(fields)}'
        return self._line(shown, choice, details)

    def _error(self, error: LmiError) -> str:
        special = "special" if self._shape.mark_special else "special_token"
        token = (
            f'{{"id": -1, "text": ""{self._logprob}-1, "{special}": true, '
            f'"error_msg": {text(str(error))}}}'
        )
        choice = self._transcript.choices[0]
        return self._line(token, choice, ', "details": {"finish_reason": "error"}')

    def _line(self, token: str, choice: Choice, details: str) -> str:
        whole = text(self._shape.before(0) + choice.text)
        return f'{self._before}{token}, "generated_text": {whole}{details}}}{self._after}'

    def _end(self) -> str:
        return ""


def server_sent_events(shape: Shape) -> JsonLines:
    """The same lines as events; the reference sends no [DONE] here."""
    return JsonLines(shape, before="data: ", after="\n\n")


class PlainText(StreamReply):
    """`output_formatter=none`: the bare text."""

    __slots__ = ("_prompt",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(1)
        self._prompt = shape.before(0)

    def _token(self, token: Token, index: int) -> str:
        shown, self._prompt = self._prompt + token.text, ""
        return shown

    def _last(self, token: Token | None, choice: Choice, index: int) -> str:
        return self._token(Token(-1, "") if token is None else token, index)

    def _error(self, error: LmiError) -> str:
        return compose({"error": str(error)})

    def _end(self) -> str:
        return ""


DIALECT = Dialect(
    temperature=temperature,
    words=WORDS,
    render=render,
    render_error=render_error,
    streams={"jsonlines": JsonLines, "sse": server_sent_events, "none": PlainText},
)

TGI = replace(
    DIALECT,
    render=render_tgi,
    stream_formatter="sse",
    logprob_key="logprob",
    mark_special=True,
    details=True,
)
