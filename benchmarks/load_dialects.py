"""How a request is said to a server, and what shows that its answer is whole.

`lmi`: the body of /invocations; a streamed answer has one line for each token. `completions`:
OpenAI's, for any server that has /v1/completions; the usage at an answer's end tells its tokens,
because a server may put several of them into one event.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MODEL: Final = "model"  # the name under which every server here offers its model


@dataclass(frozen=True, slots=True)
class Dialect:
    """path: where requests go. body: of a prompt, the tokens to generate, and whether to stream.

    tells_usage: whether an answer ends with its number of tokens.
    """

    path: str
    body: Callable[[str, int, bool], dict[str, Any]]
    tells_usage: bool

    def proof(self, tokens: int) -> re.Pattern[bytes] | None:
        """What must stand at the end of an answer of so many tokens; None: its lines tell."""
        if not self.tells_usage:
            return None
        return re.compile(rb'"completion_tokens":\s*%d\b' % tokens)


def _lmi(prompt: str, tokens: int, streamed: bool) -> dict[str, Any]:
    parameters = {"max_new_tokens": tokens, "ignore_eos_token": True}
    return {"inputs": prompt, "parameters": parameters, "stream": streamed}


def _completions(prompt: str, tokens: int, streamed: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": streamed,
    }
    if streamed:
        body["stream_options"] = {"include_usage": True}
    return body


DIALECTS: Final = {
    "lmi": Dialect("/invocations", _lmi, tells_usage=False),
    "completions": Dialect("/v1/completions", _completions, tells_usage=True),
}
