"""One choice in the front: its tokens get their text, and a stop string ends it."""

from __future__ import annotations

from lmi.core import Finish, GenerationRequest, Token, TopToken
from lmi.dist.messages import CoreEvent
from lmi.text import StopMatcher, StopStrings, TextStream, Tokenizer

Taken = tuple[tuple[Token, ...], Finish | None]


class Choice:
    """Turns the events of a choice into tokens with text.

    count: tokens so far. cached: prompt tokens whose KV was cached. A token that ends the choice by
    its id (EOS, a stop id) has no text of its own unless the request wants the stop in the text.
    """

    __slots__ = (
        "_end_ids_have_text",
        "_push",
        "_special",
        "_stream",
        "_tokenizer",
        "cached",
        "count",
    )

    def __init__(
        self,
        request: GenerationRequest,
        prompt: tuple[int, ...],
        tokenizer: Tokenizer,
        stops: StopStrings | None,
    ) -> None:
        sampling = request.sampling
        skip = sampling.skip_special_tokens
        self._stream = TextStream(
            tokenizer.detokenizer(prompt, skip_special_tokens=skip),
            hidden=tokenizer.special_ids if skip else frozenset(),
            matcher=_matcher(stops, include=sampling.include_stop_text),
            min_tokens=sampling.min_new_tokens,
        )
        self._push = self._stream.push
        self._tokenizer = tokenizer
        self._special = tokenizer.special_ids
        self._end_ids_have_text = sampling.include_stop_text
        self.cached = 0
        self.count = 0

    def take(self, event: CoreEvent) -> Taken:
        """The event's token, if it has one, and why the choice is over, if it is."""
        token_id = event.token
        finish = event.finish
        if token_id is None:
            return (), finish
        if finish is None:
            text, stopped = self._push(token_id)
            if stopped:
                finish = Finish.STOP
        else:
            text, finish = self._last(token_id, finish)
        self.count += 1
        top = event.top
        token = Token(
            token_id,
            text,
            event.logprob,
            self._named(top) if top else (),
            token_id in self._special,
        )
        return (token,), finish

    def _last(self, token_id: int, finish: Finish) -> tuple[str, Finish]:
        text = ""
        if finish is Finish.LENGTH or self._end_ids_have_text:
            text, stopped = self._push(token_id)
            if stopped:
                return text, Finish.STOP
        held, stopped = self._stream.flush()
        return text + held, Finish.STOP if stopped else finish

    def _named(self, top: tuple[tuple[int, float], ...]) -> tuple[TopToken, ...]:
        text = self._tokenizer.text
        return tuple([TopToken(token_id, text(token_id), logprob) for token_id, logprob in top])


def _matcher(stops: StopStrings | None, *, include: bool) -> StopMatcher | None:
    return None if stops is None else StopMatcher(stops, include=include)
