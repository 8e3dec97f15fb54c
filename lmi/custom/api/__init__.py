"""The classes and marks that users' scripts import, under the names of `djl_python`.

Light: no numpy, no torch before a value of theirs is met. How a request or an answer crosses a
process is not known here.
"""

from __future__ import annotations

from lmi.custom.api.decorators import (
    init_handler,
    input_formatter,
    output_formatter,
    prediction_handler,
)
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.api.pair_list import PairList
from lmi.custom.api.request_io import (
    RequestInput,
    RequestOutput,
    Sequence,
    TextGenerationOutput,
    TextInput,
    Token,
)

__all__ = [
    "Input",
    "Output",
    "PairList",
    "RequestInput",
    "RequestOutput",
    "Sequence",
    "TextGenerationOutput",
    "TextInput",
    "Token",
    "init_handler",
    "input_formatter",
    "output_formatter",
    "prediction_handler",
]
