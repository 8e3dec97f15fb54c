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


def _start(before: str, prompt: tuple[Token, ...]) -> int:
    """Where a prompt's first token begins, so that its last one ends where the answer begins.

    Not at 0 where the tokenizer has added tokens, or a space: their texts are not in the prompt's.
    """
    return len(before) - sum([len(token.text) for token in prompt]) if prompt else 0


class CompletionWhole(Whole):
    """One text for each choice of each prompt."""

    __slots__ = ()

    def _kind(self) -> str:
        return "text_completion"

    def _choice(self, choice: Choice, transcript: Transcript, position: int) -> dict[str, object]:
        answer = self._answer
        before = echoed(answer, transcript.prompt, position)
        shown = None
        if answer.logprobs is not None:
            prompt = transcript.prompt if answer.echo else ()
            start = _start(before, prompt)
            shown = completion_object([*prompt, *choice.tokens], answer.logprobs, start)
        return {
            "text": before + choice.text,
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
        self._offsets[index] = _start(before, delta.prompt)
        return self._chunk(before, delta.prompt, index, len(before)) if before else ""

    def _piece(self, delta: Delta, index: int) -> str:
        said = delta.text
        if not said and (self._answer.logprobs is None or not delta.tokens):
            return ""
        return self._chunk(said, delta.tokens, index, self._offsets[index] + len(said))

    def _closing(self, finish: Finish, index: int) -> str:
        return (
            f'{self._head}{{"index":{index},"text":"","logprobs":null,'
            f'"finish_reason":"{word(finish)}"{self._tail}'
        )

    def _chunk(self, said: str, tokens: tuple[Token, ...], index: int, end: int) -> str:
        """A chunk with some text. end: of it, in characters of the choice's whole text."""
        shown = "null"
        most = self._answer.logprobs
        if most is not None:
            shown = orjson.dumps(completion_object(tokens, most, self._offsets[index])).decode()
            self._offsets[index] = end
        return (
            f'{self._head}{{"index":{index},"text":{text(said)},'
            f'"logprobs":{shown},"finish_reason":null{self._tail}'
        )
