"""What becomes of an option that is an argument of vLLM, under the release that will run it.

A release is known where vLLM is installed; else an argument of any recorded release goes, with the
widest of its types. What the worker or the server decide themselves is not vLLM's to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from lmi.config import kinds
from lmi.config.kinds import Kind
from lmi.config.nearest import Names
from lmi.config.vllm_arguments import Argument, arguments

_SIZE: Final = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?", re.ASCII)
_ONE_REPLICA: Final = "one worker is one replica; run several, or use option.tensor_parallel_degree"
_NO_TEXT: Final = "the texts of requests are never logged"

DECIDED: Final = {
    "model": "the model is named by option.model_id",
    "disable_log_stats": "the load is in /metrics, not in the log",
    "enable_log_requests": _NO_TEXT,
    "max_log_len": _NO_TEXT,
    "engine_use_ray": "the worker is the engine's process",
    "worker_use_ray": "the worker starts its own ranks",
    "skip_tokenizer_init": "grammars and bad words need the tokenizer",
    "enable_prompt_embeds": "prompts are text or token ids",
    **dict.fromkeys(
        ("enable_mm_processor_stats", "mamba_config", "model_weights", "tokens_only"),
        "vLLM's command line has no word for it",
    ),
    **dict.fromkeys(
        (
            "data_parallel_address",
            "data_parallel_backend",
            "data_parallel_external_lb",
            "data_parallel_hybrid_lb",
            "data_parallel_multi_port_external_lb",
            "data_parallel_rank",
            "data_parallel_rpc_port",
            "data_parallel_size",
            "data_parallel_size_local",
            "data_parallel_start_rank",
        ),
        _ONE_REPLICA,
    ),
}
"""Arguments that are refused, and why: somebody else decides them here."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A whole number, with a unit as vLLM reads it; stays text for vLLM's own parser."""

    label: str = "a whole number such as 16000, 16k (16000) or 16K (16384)"

    def parse(self, text: str, /) -> str:
        if _SIZE.fullmatch(text) or text in ("auto", "-1"):
            return text
        raise ValueError(f"expected {self.label}")


def parse(argument: Argument, text: str, release: str | None) -> object:
    """The value of an argument. Raises ValueError: the end of a sentence that says the matter."""
    name = argument.name
    if name in DECIDED:
        raise ValueError(DECIDED[name])
    if release is not None:
        here = arguments(release).get(name)
        if here is None:
            raise ValueError(_lacks(argument, release))
        argument = here
    return kind_of(argument).parse(text)


def kind_of(argument: Argument) -> Kind:
    """How to read an argument of vLLM. Types that several releases disagree on are text."""
    match argument.type:
        case "bool":
            return kinds.Flag()
        case "int":
            return kinds.Whole()
        case "float":
            return kinds.Real()
        case "choice":
            return kinds.Choice(argument.choices)
        case "size":
            return Sizes()
        case "json":
            return kinds.Json("a JSON object", (dict,))
        case "list":
            return kinds.Checked("values separated by commas, or a JSON list", _list)
        case _:
            return kinds.Text()


def _list(text: str) -> object:
    if text.lstrip().startswith("["):
        return kinds.Json("a JSON list", (list,)).parse(text)
    return list(kinds.Names().parse(text))


def _lacks(argument: Argument, release: str) -> str:
    """An argument of other releases only: which, and what is nearest here."""
    meant = _names(release).nearest(argument.name)
    span = (
        argument.first
        if argument.first == argument.last
        else (f"{argument.first} to {argument.last}")
    )
    hint = f"; did you mean option.{meant}?" if meant else ""
    return f"vLLM {release}, which is installed, has no such argument; {span} had it{hint}"


@cache
def _names(release: str) -> Names:
    return Names(arguments(release))
