"""What a model's options decide about its dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["0.36", "0.25", "async"]


@dataclass(frozen=True, slots=True)
class SchemaConfig:
    """Options of the dialect.

    form: whose answers are given (`option.compat`). tgi_compat: TGI's variant of form "0.36".
    output_formatter: the model's choice, which a request may override; None goes by `stream`. Those
    of chats (`sse_chat` ...) hold for OpenAI's dialects on /invocations.
    strict_parameters: an unknown parameter refuses the request instead of being reported.
    """

    form: Form = "0.36"
    tgi_compat: bool = False
    output_formatter: str | None = None
    strict_parameters: bool = False
