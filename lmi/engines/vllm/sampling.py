"""What a core request means in vLLM's words: plain data, no vLLM here.

vLLM is asked for one choice at a time. Its own `n` refuses greedy requests and numbers its seeds in
its own way; the prompt's KV is shared between choices by its prefix cache.
"""

from __future__ import annotations

import json
from typing import Any, Final

from lmi.core import BadPayload, Grammar
from lmi.dist.messages import CoreRequest

# vLLM takes the seed -1 for none, and torch's generators take 64 bits: so this many remain.
_SEEDS: Final = 2**63


def fields(request: CoreRequest, choice: int) -> dict[str, Any]:
    """The fields of vLLM's SamplingParams for one choice, but for its grammar.

    Seeds of a request's choices follow each other. Only choice 0 shows the prompt.
    """
    shows_prompt = request.prompt_logprobs and choice == 0
    return {
        "max_tokens": request.max_new_tokens,
        "min_tokens": request.min_new_tokens,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": None if request.seed is None else (request.seed + choice) % _SEEDS,
        "stop_token_ids": list(request.stop_token_ids),
        "ignore_eos": request.ignore_eos,
        "logprobs": request.logprobs,
        "prompt_logprobs": request.prompt_top if shows_prompt else None,
        "logit_bias": dict(request.logit_bias) or None,
        "allowed_token_ids": list(request.allowed_token_ids) or None,
        "bad_words": list(request.bad_words) or None,
        "detokenize": False,
    }


def constraint(grammar: Grammar) -> dict[str, Any]:
    """The one field of vLLM's structured outputs that a grammar is. Raises BadPayload."""
    if grammar.kind == "json_object":
        return {"json_object": True}
    if grammar.kind != "choice":
        return {grammar.kind: grammar.text}
    try:
        choices = json.loads(grammar.text)
    except ValueError as error:
        raise BadPayload("the choices are no JSON list of texts", field="grammar") from error
    if not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
        raise BadPayload("the choices are no JSON list of texts", field="grammar")
    return {"choice": choices}
