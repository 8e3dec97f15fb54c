"""Generation parameters to `Sampling`: what all forms share; what differs comes as arguments."""

from __future__ import annotations

from lmi.core import Sampling
from lmi.schemas.body import LmiParameters
from lmi.schemas.config import Form
from lmi.schemas.errors import bad_payload

DEFAULT_MAX_NEW_TOKENS = 30  # documented for all versions
_GREEDY_BELOW = 1e-5  # vLLM's rule: dividing by less overflows


def build(
    form: Form, parameters: LmiParameters, *, temperature: float, logprobs: int | None
) -> Sampling:
    """A Sampling, or BadPayload where fields contradict each other."""
    max_new_tokens = parameters.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    min_new_tokens = parameters.min_new_tokens or 0
    if min_new_tokens > max_new_tokens:
        raise bad_payload(
            form,
            f"parameters.min_new_tokens={min_new_tokens}: expected at most "
            f"max_new_tokens={max_new_tokens}.",
            "parameters.min_new_tokens",
        )
    if temperature < _GREEDY_BELOW:
        temperature = 0.0
    best_of = parameters.best_of or parameters.n or 1
    n = parameters.n or best_of
    if best_of < n:
        raise bad_payload(
            form, f"parameters.best_of={best_of}: expected at least n={n}.", "parameters.best_of"
        )
    if best_of > 1 and temperature == 0.0:
        field = "parameters.best_of" if parameters.best_of else "parameters.n"
        raise bad_payload(
            form,
            f"{field}={best_of}: several answers need sampling; set do_sample and a temperature.",
            field,
        )
    stops = [*(parameters.stop_sequences or ()), *(parameters.stop or ())]
    return Sampling(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        temperature=temperature,
        top_k=max(0, parameters.top_k or 0),
        top_p=1.0 if parameters.top_p is None else parameters.top_p,
        min_p=parameters.min_p or 0.0,
        repetition_penalty=parameters.repetition_penalty or 1.0,
        presence_penalty=parameters.presence_penalty or 0.0,
        frequency_penalty=parameters.frequency_penalty or 0.0,
        seed=parameters.seed,
        stop=tuple(dict.fromkeys(stops)),
        stop_token_ids=tuple(parameters.stop_token_ids or ()),
        include_stop_text=bool(parameters.include_stop_str_in_output),
        ignore_eos=bool(parameters.ignore_eos_token),
        skip_special_tokens=parameters.skip_special_tokens is not False,
        logprobs=logprobs,
        prompt_logprobs=bool(parameters.decoder_input_details),
        n=n,
        best_of=best_of,
    )
