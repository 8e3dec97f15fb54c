"""The mixed and rude requests of the soak, and what a right answer to each is. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

WORDS: Final = tuple(
    [
        *("return", "the", "a", "copy", "of", "list", "string", "with", "file", "object", "value"),
        *("module", "class", "function", "if", "default", "none", "error", "raised", "number"),
        *("bytes", "path", "argument", "called", "new", "method", "été", "日本", "🙂"),
    ]
)
# Longer than any prompt that the demo model takes, and sometimes longer.
LONG_WORDS: Final = 400
FAR_TOO_LONG_WORDS: Final = 60_000

BAD_BODIES: Final = (
    b"",
    b"{",
    b"[]",
    b"\xff\xfe\x00",
    b"null",
    b'{"parameters": {}}',
    b'{"inputs": 3}',
    b'{"inputs": []}',
    b'{"inputs": "x", "parameters": {"max_new_tokens": -3}}',
    b'{"inputs": "x", "parameters": {"max_new_tokens": 1e999}}',
    b'{"inputs": "x", "parameters": {"temperature": "hot"}}',
    b'{"inputs": "x", "parameters": {"temperature": NaN}}',
    b'{"inputs": "x", "parameters": {"top_p": 7}}',
    b'{"inputs": "x", "parameters": {"n": 1000000000}}',
    b'{"inputs": "x", "stream": "maybe"}',
)


class Leaving(StrEnum):
    """What a client does that does not stay."""

    IN_THE_BODY = "in the middle of its own body"
    WAITING = "before anything has come"
    STREAMING = "in the middle of a stream"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. leaving: None for a client that waits. right: says what is wrong with a 200.

    refusable: whether a status of 400 to 499 is a right answer as well, or the only one.
    """

    kind: str
    body: bytes
    streamed: bool = False
    leaving: Leaving | None = None
    refusable: bool = False
    acceptable: bool = True
    right: Callable[[bytes], str | None] = lambda body: None


def random_ask(rng: random.Random) -> Ask:
    """A request of any kind; kinds that only refuse are the rarer ones."""
    kinds = (_streamed, _whole, _list, _choices, _long, _leaver, _bad, _far_too_long)
    [kind] = rng.choices(kinds, weights=(30, 20, 10, 8, 8, 16, 7, 1))
    return kind(rng)


def _streamed(rng: random.Random) -> Ask:
    parameters = _parameters(rng)
    body = _body(_words(rng, 1, 40), parameters, stream=True)
    return Ask("streamed", body, streamed=True, right=_wrong_stream)


def _whole(rng: random.Random) -> Ask:
    prompt = _words(rng, 1, 40)
    parameters = _parameters(rng) | {"return_full_text": True}

    def wrong(body: bytes) -> str | None:
        text = json.loads(body)["generated_text"]
        return None if text.startswith(prompt) else f"{text!r} does not begin with {prompt!r}"

    return Ask("whole", _body(prompt, parameters), right=wrong)


def _list(rng: random.Random) -> Ask:
    inputs = [_words(rng, 1, 20) for _ in range(rng.randint(2, 4))]

    def wrong(body: bytes) -> str | None:
        answers = json.loads(body)
        right = isinstance(answers, list) and len(answers) == len(inputs)
        return None if right else f"{len(inputs)} inputs, but {answers!r}"

    return Ask("list", _body(inputs, _parameters(rng)), right=wrong)


def _choices(rng: random.Random) -> Ask:
    n = rng.randint(2, 3)
    parameters = _parameters(rng) | {"n": n, "do_sample": True, "details": True}

    def wrong(body: bytes) -> str | None:
        others = json.loads(body)["details"]["best_of_sequences"]
        return None if len(others) == n - 1 else f"n={n}, but {len(others)} others"

    return Ask("n > 1", _body(_words(rng, 1, 20), parameters), right=wrong)


def _long(rng: random.Random) -> Ask:
    body = _body(_words(rng, 50, LONG_WORDS), _parameters(rng))
    return Ask("long prompt", body, refusable=True)


def _far_too_long(rng: random.Random) -> Ask:
    body = _body(" ".join(rng.choices(WORDS, k=FAR_TOO_LONG_WORDS)), {})
    return Ask("far too long", body, refusable=True, acceptable=False)


def _bad(rng: random.Random) -> Ask:
    return Ask("bad body", rng.choice(BAD_BODIES), refusable=True, acceptable=False)


def _leaver(rng: random.Random) -> Ask:
    leaving = rng.choice(list(Leaving))
    streamed = leaving is Leaving.STREAMING or rng.random() < 0.5
    parameters = _parameters(rng) | {"max_new_tokens": 200, "ignore_eos_token": True}
    body = _body(_words(rng, 1, 40), parameters, stream=streamed)
    return Ask(f"leaves {leaving}", body, streamed=streamed, leaving=leaving)


def _wrong_stream(body: bytes) -> str | None:
    """Every line is JSON, the last alone has the text, and it is what the tokens said."""
    lines = [json.loads(line) for line in body.splitlines()]
    *_, last = lines
    texts = [line for line in lines if "generated_text" in line]
    if texts != [last]:
        return f"{len(texts)} ends in one stream, the last line being {last!r}"
    said = "".join([line["token"]["text"] for line in lines])
    whole = last["generated_text"]
    return None if said == whole else f"streamed {said!r}, whole {whole!r}"


def _parameters(rng: random.Random) -> dict[str, Any]:
    possible: dict[str, Any] = {
        "temperature": round(rng.uniform(0.1, 1.5), 2),
        "top_k": rng.randint(1, 50),
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "seed": rng.randrange(1000),
        "stop_sequences": rng.sample([" the", ".", "xyzzy", "return"], k=2),
        "ignore_eos_token": True,
    }
    chosen = {name: value for name, value in possible.items() if rng.random() < 0.3}
    return chosen | {"max_new_tokens": rng.randint(1, 64)}


def _words(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


def _body(
    inputs: str | Sequence[str], parameters: dict[str, Any], *, stream: bool = False
) -> bytes:
    return json.dumps({"inputs": inputs, "parameters": parameters, "stream": stream}).encode()
