"""OpenAI's dialects: chat (`messages`) and completions (`prompt`), with vLLM's extensions.

The replies are OpenAI's JSON to the letter. How a stream is framed depends on where the request
came in: events with a `[DONE]` on OpenAI's routes, what the form says on /invocations.
"""

from lmi.schemas.openai.chat import parse_chat
from lmi.schemas.openai.chat_body import ChatBody
from lmi.schemas.openai.completion_body import CompletionBody
from lmi.schemas.openai.completions import parse_completions
from lmi.schemas.openai.errors import UnknownModel, openai_error, openai_status

__all__ = [
    "ChatBody",
    "CompletionBody",
    "UnknownModel",
    "openai_error",
    "openai_status",
    "parse_chat",
    "parse_completions",
]
