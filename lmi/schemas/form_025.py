"""Form "0.25": bare texts when streamed, and the JSON object piece by piece."""

from __future__ import annotations

import orjson

from lmi.core import Finish, LmiError, Token
from lmi.schemas import form_036
from lmi.schemas.assemble import Choice
from lmi.schemas.body import LmiParameters
from lmi.schemas.dialect import Dialect
from lmi.schemas.errors import status_of
from lmi.schemas.pieces import text
from lmi.schemas.reply import StreamReply
from lmi.schemas.shape import Shape

WORDS = {
    Finish.LENGTH: "length",
    Finish.EOS: "eos_token",
    Finish.STOP: "stop_sequence",
    Finish.CANCELLED: "abort",
    Finish.ERROR: "error",
}


def temperature(parameters: LmiParameters) -> float:
    """Greedy unless do_sample says otherwise, as LMI-Dist of 0.25."""
    if not parameters.do_sample:
        return 0.0
    return 1.0 if parameters.temperature is None else parameters.temperature


def _event(error: LmiError) -> str:
    return orjson.dumps({"code": status_of(error), "error": str(error)}).decode()


class Outputs(StreamReply):
    """`{"outputs": ["text"]}`, a line for each token."""

    __slots__ = ("_prompt",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(1)
        self._prompt = shape.before(0)

    def _token(self, token: Token, index: int) -> str:
        shown, self._prompt = self._prompt + token.text, ""
        return f'{{"outputs": [{text(shown)}]}}\n'

    def _last(self, token: Token | None, choice: Choice, index: int) -> str:
        return "" if token is None else self._token(token, index)

    def _error(self, error: LmiError) -> str:
        return _event(error) + "\n"

    def _end(self) -> str:
        return ""


class Pieces(StreamReply):
    """`{"generated_text": "…"}` as it grows; whoever reads it whole sees one JSON object."""

    __slots__ = ("_opening",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(1)
        self._opening = '{"generated_text": ' + text(shape.before(0))[:-1]

    def _token(self, token: Token, index: int) -> str:
        shown, self._opening = self._opening + text(token.text)[1:-1], ""
        return shown

    def _last(self, token: Token | None, choice: Choice, index: int) -> str:
        return self._token(Token(-1, "") if token is None else token, index) + '"}'

    def _error(self, error: LmiError) -> str:
        return _event(error)

    def _end(self) -> str:
        return ""


DIALECT = Dialect(
    temperature=temperature,
    words=WORDS,
    render=form_036.render,
    render_error=form_036.render_error,
    streams={
        "json": Pieces,
        "jsonlines": Outputs,
        "sse": form_036.server_sent_events,
        "none": form_036.PlainText,
    },
)
