"""Text in and out of token ids: tokenizer, exact incremental decoding, stop strings."""

from lmi.text.chat import ChatTemplate
from lmi.text.detokenize import Detokenizer
from lmi.text.stop import MAX_STOP_CHARS, MAX_STOPS, StopMatcher, StopStrings
from lmi.text.stream import TextStream
from lmi.text.tokenizer import Tokenizer

__all__ = [
    "MAX_STOPS",
    "MAX_STOP_CHARS",
    "ChatTemplate",
    "Detokenizer",
    "StopMatcher",
    "StopStrings",
    "TextStream",
    "Tokenizer",
]
