"""Answers of a chat: `chat.completion` and its chunks."""

from __future__ import annotations

import orjson

from lmi.core import Delta, Finish
from lmi.schemas.assemble import Choice, Transcript
from lmi.schemas.openai.answer import word
from lmi.schemas.openai.logprobs import chat_content
from lmi.schemas.openai.reply import Stream, Whole
from lmi.schemas.pieces import text


class ChatWhole(Whole):
    """One message for each choice."""

    __slots__ = ()

    def _kind(self) -> str:
        return "chat.completion"

    def _choice(self, choice: Choice, transcript: Transcript, position: int) -> dict[str, object]:
        most = self._answer.logprobs
        shown = None if most is None else {"content": chat_content(choice.tokens, most)}
        return {
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": shown,
            "finish_reason": word(choice.finish),
        }


class ChatStream(Stream):
    """The role, the text as it comes, the finish reason: for each choice."""

    __slots__ = ()

    def _kind(self) -> str:
        return "chat.completion.chunk"

    def _prompt_field(self) -> str:
        return "messages"

    def _opening(self, delta: Delta, index: int, position: int) -> str:
        return (
            f'{self._head}{{"index":{index},"delta":{{"role":"assistant","content":""}},'
            f'"logprobs":null,"finish_reason":null{self._tail}'
        )

    def _piece(self, delta: Delta, index: int) -> str:
        said = delta.text
        most = self._answer.logprobs
        shown = "null"
        if most is not None and delta.tokens:
            content = {"content": chat_content(delta.tokens, most)}
            shown = orjson.dumps(content).decode()
        elif not said:
            return ""
        return (
            f'{self._head}{{"index":{index},"delta":{{"content":{text(said)}}},'
            f'"logprobs":{shown},"finish_reason":null{self._tail}'
        )

    def _closing(self, finish: Finish, index: int) -> str:
        return (
            f'{self._head}{{"index":{index},"delta":{{}},"logprobs":null,'
            f'"finish_reason":"{word(finish)}"{self._tail}'
        )
