"""Request dialects: bytes in, generation requests and reply bytes out. Pure: no input, no output.

    parsed = parse(body, headers, config)     BadPayload names the field that is at fault
    reply = parsed.reply()
    reply.feed(delta) -> bytes                what this delta lets the client read, often nothing

The dialects are LMI's own (`inputs` and `parameters`), in the three forms that the reference has
had: "0.36" (its rolling batch; the default), "0.25" and "async", and in TGI's variant of the first;
and OpenAI's two (`lmi.schemas.openai`): chat and completions.
"""

from lmi.schemas.body import LmiBody, LmiParameters
from lmi.schemas.config import Form, SchemaConfig
from lmi.schemas.errors import error_body
from lmi.schemas.openai import ChatBody, CompletionBody, UnknownModel, openai_error, openai_status
from lmi.schemas.parse import parse
from lmi.schemas.parsed import ParsedRequest, Reply
from lmi.schemas.serving import Serving
from lmi.schemas.unknown import Ignored

__all__ = [
    "ChatBody",
    "CompletionBody",
    "Form",
    "Ignored",
    "LmiBody",
    "LmiParameters",
    "ParsedRequest",
    "Reply",
    "SchemaConfig",
    "Serving",
    "UnknownModel",
    "error_body",
    "openai_error",
    "openai_status",
    "parse",
]
