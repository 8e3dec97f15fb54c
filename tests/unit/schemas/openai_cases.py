"""The golden cases of chat and completions: a request, its deltas, where its answer is kept.

Ids and times differ from answer to answer: in the files they are ID and 0.
`python -m tests.unit.schemas.openai_cases` writes the files anew; read the difference before you
commit it, because these bytes are a contract.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lmi.core import Delta, Finish, LmiError, Route, Token, TopToken
from lmi.schemas import (
    ParsedRequest,
    SchemaConfig,
    Serving,
    error_body,
    openai_error,
    openai_status,
    parse,
)
from lmi.text import ChatTemplate
from tests.support.scripted import script
from tests.unit.schemas.golden_cases import EOS, ERROR, TOKENS

FOLDER = Path(__file__).parents[2] / "golden" / "openai"

TEMPLATE = ChatTemplate(
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SERVING = Serving("tiny", chat=TEMPLATE)

# Where a request comes in: OpenAI's routes, or /invocations in a form.
ORIGINS: dict[str, SchemaConfig] = {
    "v1": SchemaConfig(),
    "0.36": SchemaConfig(),
    "async": SchemaConfig(form="async"),
    "jsonlines": SchemaConfig(output_formatter="jsonlines_chat"),
}

# With what a tokenizer adds: a token, and a space.
PROMPT = (
    Token(1, "<s>", special=True),
    Token(20, " Say ", -7.25, (TopToken(20, " Say ", -7.25), TopToken(9, "x", -8.0))),
    Token(21, "ü", -0.5, (TopToken(21, "ü", -0.5),)),
)


@dataclass(frozen=True)
class Case:
    """body: without the prompt and `stream`."""

    name: str
    deltas: tuple[tuple[int, Delta], ...]
    chat: bool = True
    stream: bool = False
    body: tuple[tuple[str, object], ...] = ()

    def request(self) -> bytes:
        fields: dict[str, object] = dict(self.body)
        if self.chat:
            fields["messages"] = [{"role": "user", "content": "Say ü"}]
        else:
            fields.setdefault("prompt", "Say ü")
        if self.stream:
            fields["stream"] = True
        return json.dumps(fields).encode()

    def read(self, origin: str) -> ParsedRequest:
        route = Route.CHAT if self.chat else Route.COMPLETIONS
        if origin != "v1":
            route = Route.INVOCATIONS
        return parse(self.request(), {}, ORIGINS[origin], route, SERVING)


def _of(*scripts: list[Delta]) -> tuple[tuple[int, Delta], ...]:
    return tuple((place, delta) for place, deltas in enumerate(scripts) for delta in deltas)


def _later() -> tuple[tuple[int, Delta], ...]:
    return _of([*script(TOKENS)[:3], *script([], Finish.ERROR, error=ERROR)])


def _both(tokens: tuple[Token, ...]) -> list[Delta]:
    """Two choices that say the same, each its own way round."""
    return [*script(tokens), *script(tokens[::-1], Finish.STOP, choice=1)]


_TWO = _of([*script(TOKENS), *script([*TOKENS[::-1], EOS], Finish.EOS, choice=1)])
_USAGE = ("stream_options", {"include_usage": True})

CASES = (
    *(
        Case(f"{'chat' if chat else 'text'}-{name}{'-stream' if stream else ''}", deltas, chat,
             stream, body)
        for chat in (True, False)
        for stream in (False, True)
        for name, deltas, body in (
            ("plain", _of(script(TOKENS)), ()),
            ("eos", _of(script([*TOKENS, EOS], Finish.EOS)), ()),
            ("stop", _of(script(TOKENS, Finish.STOP)), (("stop", ":"),)),
            (
                "logprobs",
                _of(script([*TOKENS, EOS], Finish.EOS)),
                (("logprobs", True), ("top_logprobs", 2)) if chat else (("logprobs", 2),),
            ),
            ("n", _TWO, (("n", 2),)),
            ("error", _of(script([], Finish.ERROR, error=ERROR)), ()),
            ("error-later", _later(), ()),
            ("usage", _of(script(TOKENS)), (_USAGE,) if stream else ()),
        )
    ),
    *(
        Case(f"text-{name}{'-stream' if stream else ''}", deltas, False, stream, body)
        for stream in (False, True)
        for name, deltas, body in (
            (
                "several",
                _of(script(TOKENS), script([EOS], Finish.EOS)),
                (("prompt", ["one", "two"]), ("n", 1)),
            ),
            (
                "several-n",
                _of(_both(TOKENS), _both(TOKENS[2:])),
                (("prompt", ["one", "two"]), ("n", 2)),
            ),
            ("echo", _of(script(TOKENS)), (("echo", True),)),
            (
                "echo-ids",
                _of(script(TOKENS, prompt=PROMPT)),
                (("echo", True), ("prompt", [1, 20, 21])),
            ),
            (
                "echo-logprobs",
                _of(script(TOKENS, prompt=PROMPT)),
                (("echo", True), ("logprobs", 1)),
            ),
        )
    ),
)  # fmt: skip


def answer(parsed: ParsedRequest, deltas: Iterable[tuple[int, Delta]], v1: bool) -> bytes:
    """The bytes of the body, or the error's body with its status before it."""
    reply = parsed.reply()
    try:
        data = b"".join(reply.feed(delta, place) for place, delta in deltas if not reply.done)
    except LmiError as error:
        status = openai_status(error)
        body = openai_error(error, status) if v1 else error_body(error)
        return b"HTTP %d " % status + body if v1 else b"HTTP " + body
    data = re.sub(rb'"id":"(chatcmpl|cmpl)-[0-9a-f]{32}"', rb'"id":"\1-ID"', data)
    return re.sub(rb'"created":\d+', b'"created":0', data)


def write() -> None:
    for origin in ORIGINS:
        folder = FOLDER / origin
        folder.mkdir(parents=True, exist_ok=True)
        for case in CASES:
            parsed = case.read(origin)
            kind = parsed.content_type.partition("/")[2].replace("event-stream", "sse")
            data = answer(parsed, case.deltas, origin == "v1")
            (folder / f"{case.name}.{kind}").write_bytes(data)


if __name__ == "__main__":
    write()
