"""The mark for functions that write an answer, and the formats that LMI has."""

from lmi.custom.api.decorators import output_formatter
from lmi.custom.api.formatting import (
    get_generated_text,
    get_output_formatter,
    get_sequence_details,
)
from lmi.custom.api.formatting import json_formatter as _json_output_formatter
from lmi.custom.api.formatting import jsonlines_formatter as _jsonlines_output_formatter
from lmi.custom.api.formatting import sse_formatter as sse_response_formatter
from lmi.custom.api.request_io import RequestOutput, TextGenerationOutput, Token

__all__ = [
    "RequestOutput",
    "TextGenerationOutput",
    "Token",
    "_json_output_formatter",
    "_jsonlines_output_formatter",
    "get_generated_text",
    "get_output_formatter",
    "get_sequence_details",
    "output_formatter",
    "sse_response_formatter",
]
