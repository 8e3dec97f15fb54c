"""Form "async": what the reference's vLLM handler of the asynchronous mode answers to `inputs`.

Its finish reasons are vLLM's. Where the handler fills a field wrongly (the stop reason as finish
reason, one token too many), this form gives the right value in the same place.
"""

from __future__ import annotations

import orjson

from lmi.core import Finish, LmiError, Token
from lmi.schemas.assemble import Choice, Transcript
from lmi.schemas.body import LmiParameters
from lmi.schemas.dialect import Dialect
from lmi.schemas.errors import status_of
from lmi.schemas.pieces import compose, number, text
from lmi.schemas.reply import StreamReply
from lmi.schemas.shape import Shape

WORDS = {
    Finish.LENGTH: "length",
    Finish.EOS: "stop",
    Finish.STOP: "stop",
    Finish.CANCELLED: "abort",
    Finish.ERROR: "error",
}

_END = "\n\n"  # the chunks of vLLM's usage and of its [DONE], each emptied to a line end


def temperature(parameters: LmiParameters) -> float:
    """Sampling unless do_sample=false or a temperature of 0."""
    if parameters.do_sample is False:
        return 0.0
    return 1.0 if parameters.temperature is None else parameters.temperature


def render(shape: Shape, transcript: Transcript, position: int) -> object:
    """The object of one input's whole answer: its first choice."""
    choice = transcript.choices[0]
    answer: dict[str, object] = {"generated_text": shape.before(position) + choice.text}
    if shape.details:
        # The first token of a prompt has no probability; the reference leaves it out.
        prefill = [token for token in transcript.prompt if token.logprob is not None]
        answer["details"] = {
            "finish_reason": shape.word(choice.finish),
            "generated_tokens": choice.count,
            "seed": shape.seed,
            "prefill": [shape.token(token) for token in prefill] if shape.prefill else [],
            "tokens": [shape.token(token) for token in choice.tokens],
        }
    return answer


def render_error(error: LmiError) -> object:
    """The object of an input that failed while its neighbours did not."""
    return {"code": status_of(error), "error": str(error)}


class Lines(StreamReply):
    """A line for each token, then blank ones."""

    __slots__ = ("_shape",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.choices)
        self._shape = shape

    def _token(self, token: Token, index: int) -> str:
        return self._line(token, index, "null", "null")

    def _last(self, token: Token | None, choice: Choice, index: int) -> str:
        details = "null"
        if self._shape.details:
            usage = choice.usage
            details = compose(
                {
                    "finish_reason": self._shape.word(choice.finish),
                    "seed": self._shape.seed,
                    "generated_tokens": choice.count,
                    "input_length": None if usage is None else usage.prompt_tokens,
                }
            )
        whole = text(self._shape.before(0) + choice.text)
        return self._line(Token(-1, "") if token is None else token, index, whole, details)

    def _line(self, token: Token, index: int, whole: str, details: str) -> str:
        return (
            f'{{"index": {index}, "token": {{"id": {token.id}, "text": {text(token.text)}, '
            f'"logprob": {number(token.logprob)}}}, "generated_text": {whole}, '
            f'"details": {details}}}\n'
        )

    def _error(self, error: LmiError) -> str:
        return orjson.dumps(render_error(error)).decode()

    def _end(self) -> str:
        return _END


DIALECT = Dialect(
    temperature=temperature,
    words=WORDS,
    render=render,
    render_error=render_error,
    streams={"jsonlines": Lines},
    end="\n",
    chooses=False,
    streams_choices=True,
    logprob_key="logprob",
)
