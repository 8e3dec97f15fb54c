"""The cases of the golden files: a request, the deltas that come, and where its answer is kept.

`python -m tests.unit.schemas.golden_cases` writes the files anew; read the difference before you
commit it, because these bytes are a contract.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lmi.core import Delta, EngineError, Finish, LmiError, Token, TopToken
from lmi.schemas import ParsedRequest, SchemaConfig, error_body, parse
from tests.support.scripted import script

FOLDER = Path(__file__).parents[2] / "golden" / "api"

FORMS = {
    "0.36": SchemaConfig(),
    "0.36-tgi": SchemaConfig(tgi_compat=True),
    "0.25": SchemaConfig(form="0.25"),
    "async": SchemaConfig(form="async"),
}

PROMPT = 'Say "ü" and 漢字:'
_TOP = (TopToken(11, ' "a"', -0.25), TopToken(15, " b", -1.75))
TOKENS = (
    Token(11, ' "a"', -0.25, _TOP),
    Token(12, "\n\t漢\u2028", -1.5, (TopToken(12, "\n\t漢\u2028", -1.5), TopToken(9, "x", -2.0))),
    Token(13, "", -3.0, (TopToken(10, "y", -0.5), TopToken(9, "x", -2.0))),
    Token(14, "字😀", -1e-05, (TopToken(14, "字😀", -1e-05), TopToken(9, "x", -12.5))),
)
EOS = Token(2, "", -0.125, (TopToken(2, "</s>", -0.125), TopToken(9, "x", -3.5)), special=True)
PREFILL = (Token(1, "<s>"), Token(21, "Say", -7.25), Token(22, ' "ü"', -0.5))
ERROR = EngineError("the step failed: out of luck")


@dataclass(frozen=True)
class Case:
    """parameters and inputs of the body; deltas by input. stream: the body's field."""

    name: str
    deltas: tuple[tuple[int, Delta], ...]
    stream: bool = False
    inputs: str | list[str] = PROMPT
    parameters: dict[str, object] | None = None

    def body(self) -> bytes:
        fields: dict[str, object] = {"inputs": self.inputs}
        if self.parameters is not None:
            fields["parameters"] = self.parameters
        if self.stream:
            fields["stream"] = True
        return json.dumps(fields).encode()


def _of(*scripts: list[Delta]) -> tuple[tuple[int, Delta], ...]:
    return tuple((place, delta) for place, deltas in enumerate(scripts) for delta in deltas)


_ALL = {"details": True, "decoder_input_details": True, "top_n_tokens": 2}
_SAMPLED = {"do_sample": True, "temperature": 0.7, "seed": 42}

CASES = (
    *(
        Case(f"{name}{'-stream' if stream else ''}", deltas, stream, parameters=parameters)
        for stream in (False, True)
        for name, deltas, parameters in (
            ("plain", _of(script(TOKENS)), None),
            ("eos", _of(script([*TOKENS, EOS], Finish.EOS)), {"details": True}),
            ("stop", _of(script(TOKENS, Finish.STOP)), {"details": True, "stop": [":"]}),
            ("details", _of(script(TOKENS)), {"details": True, "seed": 7}),
            ("all-details", _of(script(TOKENS, prompt=PREFILL)), _ALL),
            ("full-text", _of(script(TOKENS)), {"return_full_text": True}),
            ("error", _of(script([], Finish.ERROR, error=ERROR)), None),
            ("error-later", _of([*script(TOKENS)[:3], *script([], Finish.ERROR, error=ERROR)]), {}),
            ("sse", _of(script(TOKENS)), {"output_formatter": "sse"}),
            ("none", _of(script(TOKENS)), {"output_formatter": "none"}),
        )
    ),
    Case(
        "n",
        _of([*script(TOKENS), *script(TOKENS[::-1], Finish.STOP, choice=1)]),
        parameters={"n": 2, **_SAMPLED},
    ),
    Case("list", _of(script(TOKENS), script([EOS], Finish.EOS)), inputs=["one", "two"]),
    Case("list-details", _of(script(TOKENS)), inputs=[PROMPT], parameters={"details": True}),
    Case(
        "list-error",
        _of(script([], Finish.ERROR, error=ERROR), script(TOKENS)),
        inputs=["one", "two"],
    ),
)


def answer(parsed: ParsedRequest, deltas: Iterable[tuple[int, Delta]]) -> bytes:
    """The bytes of the body, or the error's body with its status before it."""
    reply = parsed.reply()
    try:
        return b"".join(reply.feed(delta, place) for place, delta in deltas)
    except LmiError as error:
        return b"HTTP " + error_body(error)


def write() -> None:
    for form, config in FORMS.items():
        folder = FOLDER / form
        folder.mkdir(parents=True, exist_ok=True)
        for case in CASES:
            parsed = parse(case.body(), {}, config)
            kind = parsed.content_type.partition("/")[2].replace("event-stream", "sse")
            (folder / f"{case.name}.{kind}").write_bytes(answer(parsed, case.deltas))


if __name__ == "__main__":
    write()
