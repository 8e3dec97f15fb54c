"""Answers of completions: `text_completion`, whole and in chunks."""

from __future__ import annotations

import orjson

from lmi.core import Delta, Finish, Token
from lmi.schemas.assemble import Choice, Transcript
from lmi.schemas.openai.answer import Answer, Frame, word
from lmi.schemas.openai.logprobs import completion_object
from lmi.schemas.openai.reply import Stream, Whole
from lmi.schemas.pieces import text


def echoed(answer: Answer, prompt: tuple[Token, ...], position: int) -> str:
    """What stands before the answers to a prompt. prompt: its tokens, where the engine shows
    them."""
    if not answer.echo:
        return ""
    given = answer.echo[position]
    return "".join([token.text for token in prompt]) if given is None else given


class CompletionWhole(Whole):
    """One text for each choice of each prompt."""

    __slots__ = ()

    def _kind(self) -> str:
        return "text_completion"

    def _choice(self, choice: Choice, transcript: Transcript, position: int) -> dict[str, object]:
        answer = self._answer
        shown = None
        if answer.logprobs is not None:
            tokens = [*(transcript.prompt if answer.echo else ()), *choice.tokens]
            shown = completion_object(tokens, answer.logprobs, 0)
        return {
            "text": echoed(answer, transcript.prompt, position) + choice.text,
            "logprobs": shown,
            "finish_reason": word(choice.finish),
        }


class CompletionStream(Stream):
    """The prompt if it is to be echoed, the text as it comes, the finish reason: for each choice.

    With several choices the prompt's tokens would come with the first of them only, so the parser
    refuses what would need them.
    """

    __slots__ = ("_offsets",)

    def __init__(self, answer: Answer, frame: Frame) -> None:
        super().__init__(answer, frame)
        self._offsets = [0] * answer.total  # characters so far, by choice

    def _kind(self) -> str:
        return "text_completion"

    def _prompt_field(self) -> str:
        return "prompt"

    def _opening(self, delta: Delta, index: int, position: int) -> str:
        before = echoed(self._answer, delta.prompt, position)
        return self._chunk(before, delta.prompt, index) if before else ""

    def _piece(self, delta: Delta, index: int) -> str:
        said = delta.text
        if not said and (self._answer.logprobs is None or not delta.tokens):
            return ""
        return self._chunk(said, delta.tokens, index)

    def _closing(self, finish: Finish, index: int) -> str:
        return (
            f'{self._head}{{"index":{index},"text":"","logprobs":null,'
            f'"finish_reason":"{word(finish)}"{self._tail}'
        )

    def _chunk(self, said: str, tokens: tuple[Token, ...], index: int) -> str:
        shown = "null"
        most = self._answer.logprobs
        if most is not None:
            offset = self._offsets[index]
            shown = orjson.dumps(completion_object(tokens, most, offset)).decode()
            self._offsets[index] += len(said)
        return (
            f'{self._head}{{"index":{index},"text":{text(said)},'
            f'"logprobs":{shown},"finish_reason":null{self._tail}'
        )
