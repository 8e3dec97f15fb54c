"""The visible text of one choice: detokeniser and stop strings in one."""

from __future__ import annotations

from lmi.text.detokenize import Detokenizer
from lmi.text.stop import StopMatcher


class TextStream:
    """Token ids in, visible text out.

    hidden: ids whose text is not shown (special tokens, where they are skipped). matcher: None
    without stop strings. min_tokens: stop strings that end within the text of this many first
    tokens do not count.
    """

    __slots__ = ("_decode", "_detokenizer", "_hidden", "_left", "_matcher")

    def __init__(
        self,
        detokenizer: Detokenizer,
        *,
        hidden: frozenset[int] = frozenset(),
        matcher: StopMatcher | None = None,
        min_tokens: int = 0,
    ) -> None:
        self._detokenizer = detokenizer
        self._decode = detokenizer.push
        self._hidden = hidden
        self._matcher = matcher
        self._left = min_tokens

    def push(self, token_id: int, /) -> tuple[str, bool]:
        """The text that this token released, and whether a stop string ended in it.

        After a stop the stream is over.
        """
        text = "" if token_id in self._hidden else self._decode(token_id)
        if self._matcher is None:
            return text, False
        armed = self._left <= 0
        self._left -= 1
        return self._matcher.push(text, armed=armed) if text else ("", False)

    def flush(self) -> tuple[str, bool]:
        """What was held back, at the end of the choice; a stop string may still end in it."""
        text = self._detokenizer.flush()
        if self._matcher is None:
            return text, False
        shown, stopped = self._matcher.push(text, armed=self._left <= 0)
        return (shown, True) if stopped else (shown + self._matcher.flush(), False)
