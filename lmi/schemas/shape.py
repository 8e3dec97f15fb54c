"""What a client asked to see: read once from the parameters, then obeyed by the formatters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmi.core import Finish, Token, TopToken
from lmi.schemas.pieces import logprob


@dataclass(frozen=True, slots=True)
class Shape:
    """prompts: the inputs as they came, for full texts and details. listed: they came as a list.

    logprob_key: what a log probability is called. words: the form's words for finish reasons.
    mark_special: say of a special token that it is one.
    """

    prompts: tuple[str, ...]
    listed: bool
    choices: int
    full_text: bool
    details: bool
    prefill: bool
    top_tokens: bool
    seed: int | None
    words: Mapping[Finish, str]
    logprob_key: str = "log_prob"
    mark_special: bool = False

    def before(self, position: int) -> str:
        """What stands before the generated text."""
        return self.prompts[position] if self.full_text else ""

    def word(self, finish: Finish | None) -> str | None:
        return None if finish is None else self.words[finish]

    def token(self, token: Token) -> dict[str, object]:
        """A token as an object of `tokens` or `prefill`."""
        shown: dict[str, object] = {
            "id": token.id,
            "text": token.text,
            self.logprob_key: logprob(token.logprob),
        }
        if self.mark_special and token.special:
            shown["special"] = True
        return shown

    def top(self, token: Token) -> list[dict[str, object]]:
        """The chosen token, then the likeliest others: an element of `top_tokens`."""
        own = next((each for each in token.top if each.id == token.id), None)
        chosen = TopToken(token.id, token.text, 0.0) if own is None else own
        others = [each for each in token.top if each.id != token.id]
        return [
            {"id": token.id, "text": chosen.text, self.logprob_key: logprob(token.logprob)},
            *[self._other(each) for each in others],
        ]

    def _other(self, token: TopToken) -> dict[str, object]:
        return {"id": token.id, "text": token.text, self.logprob_key: logprob(token.logprob)}
