"""Users' formatters: which of the reference's signatures one has, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from lmi.custom.api.encode_decode import decode
from lmi.custom.api.inputs import Input
from lmi.custom.signatures import check_takes
from lmi.custom.tokenizers import LazyTokenizer, uses
from lmi.schemas import Form

Function = Callable[..., Any]

_LEGACY: Final = 6  # parameters of an output formatter of LMI 0.25 and 0.26
_OUTPUT: Final = "request_output"  # what examples call it, whether annotated or not
_OUTPUTS: Final = frozenset({"RequestOutput", "TextGenerationOutput"})
_MAPPINGS: Final = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})


class Kind(Enum):
    """What an output formatter gets."""

    OUTPUT = "(request_output: RequestOutput) -> str, for each token"
    LEGACY = "(token, first_token, last_token, details, generated_text, id) -> str, for each token"
    RESPONSE = "(response_data: dict) -> dict, for the answer or for each chunk of it"


@dataclass(frozen=True, slots=True)
class OutputFormatter:
    """wants_mapping: chunks of a stream are given as objects, not as the text of an event."""

    function: Function
    kind: Kind
    wants_mapping: bool = False

    @classmethod
    def of(cls, function: Function, form: Form) -> OutputFormatter:
        """Tell by the first parameter's annotation, then by the number of parameters, then by the
        form of the model's answers. Raises ConfigError for one that can't be called so."""
        annotated = _annotation(function)
        if annotated in _OUTPUTS:
            kind = Kind.OUTPUT
        elif annotated in _MAPPINGS:
            kind = Kind.RESPONSE
        elif _accepts(function, _LEGACY) and not _accepts(function, 1):
            kind = Kind.LEGACY
        elif form == "async" or (_accepts(function, 1) and _first_name(function) != _OUTPUT):
            # The reference knows its own classes by their annotation; one that has none is new
            # enough to get a response.
            kind = Kind.RESPONSE
        else:
            kind = Kind.OUTPUT
        check_takes(function, _LEGACY if kind is Kind.LEGACY else 1, kind.value)
        return cls(function, kind, annotated in _MAPPINGS)


@dataclass(frozen=True, slots=True)
class InputFormatter:
    """decodes: it gets the decoded body; else the Input. named: the further arguments it takes."""

    function: Function
    decodes: bool
    named: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        function: Function,
        form: Form,
        properties: Mapping[str, Any],
        tokenizer: LazyTokenizer,
    ) -> InputFormatter:
        """Tell by the first parameter's annotation, then by its name, then by the form of the
        model's answers. Raises ConfigError for one that can't be called so."""
        annotated = _annotation(function)
        if annotated in _MAPPINGS or annotated == "Input":
            decodes = annotated != "Input"
        else:
            decodes = _first_name(function) == "decoded_payload" or form == "async"
        offered: dict[str, Any] = {"tokenizer": tokenizer if tokenizer.there else None}
        if not decodes:
            offered |= {
                "configs": dict(properties),
                "adapter_registry": {},
                "model_config": None,
                "peft_config": None,
                "rolling_batch": None,
                "image_placeholder_token": None,
                "is_mistral_tokenizer": False,
                "is_rolling_batch": True,
            }
        if tokenizer.there and uses(function, "tokenizer"):
            tokenizer.load()
        check_takes(
            function,
            1,
            "(decoded_payload: dict, tokenizer=None, **kwargs) -> dict or "
            "(input_item: Input, **kwargs) -> RequestInput",
        )
        return cls(function, decodes, _taken(function, offered))

    def apply(self, inputs: Input) -> Any:
        """What it makes of a request: a dictionary or a RequestInput."""
        if not self.decodes:
            return self.function(inputs, **self.named)
        payload = decode(inputs, inputs.get_property("content-type"))
        return self.function(payload, **self.named)


def _parameters(function: Function) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C have none
        return []


def _annotation(function: Function) -> str:
    """The name of the class that the first parameter is annotated with."""
    parameters = _parameters(function)
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return ""
    annotation = parameters[0].annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return str(text).partition("[")[0].rpartition(".")[2]


def _first_name(function: Function) -> str:
    parameters = _parameters(function)
    return parameters[0].name if parameters else ""


def _accepts(function: Function, count: int) -> bool:
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError:
        return False
    return True


def _taken(function: Function, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that a function can take."""
    parameters = _parameters(function)[1:]
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return dict(offered)
    names = {each.name for each in parameters}
    return {name: value for name, value in offered.items() if name in names}
