"""Generation parameters to `Sampling`: what all dialects share; what differs comes as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lmi.core import BadPayload, Grammar, Sampling
from lmi.schemas.errors import Voice, bad_payload
from lmi.schemas.grammar import grammar_of
from lmi.schemas.sampling_fields import SamplingFields

_GREEDY_BELOW = 1e-5  # vLLM's rule: dividing by less overflows


class Builder:
    """Makes a Sampling of a dialect's fields, or BadPayload where they contradict each other.

    path: what stands before a field's name in errors, such as `parameters.`.
    """

    __slots__ = ("_path", "_voice")

    def __init__(self, voice: Voice, path: str = "") -> None:
        self._voice = voice
        self._path = path

    def __call__(
        self,
        fields: SamplingFields,
        *,
        temperature: float,
        most: tuple[str, int],
        least: tuple[str, int],
        ignore_eos: bool,
        logprobs: int | None,
        prompt_logprobs: bool,
        prompt_top: int = 0,
        more_stops: list[str] | None = None,
        more_bad_words: list[str] | None = None,
        more_grammars: Mapping[str, Grammar | None] = MappingProxyType({}),
    ) -> Sampling:
        """most, least: the fields of the most and the least new tokens, and their values."""
        if least[1] > most[1]:
            raise self.refuse(
                f"{self._path}{least[0]}={least[1]}: expected at most {most[0]}={most[1]}.",
                self._path + least[0],
            )
        if temperature < _GREEDY_BELOW:
            temperature = 0.0
        n, best_of = self._choices(fields, temperature)
        return Sampling(
            max_new_tokens=most[1],
            min_new_tokens=least[1],
            temperature=temperature,
            top_k=max(0, fields.top_k or 0),
            top_p=1.0 if fields.top_p is None else fields.top_p,
            min_p=fields.min_p or 0.0,
            repetition_penalty=fields.repetition_penalty or 1.0,
            presence_penalty=fields.presence_penalty or 0.0,
            frequency_penalty=fields.frequency_penalty or 0.0,
            seed=fields.seed,
            stop=tuple(dict.fromkeys([*(more_stops or ()), *(fields.stop or ())])),
            stop_token_ids=tuple(fields.stop_token_ids or ()),
            include_stop_text=bool(fields.include_stop_str_in_output),
            ignore_eos=ignore_eos,
            skip_special_tokens=fields.skip_special_tokens is not False,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            prompt_top=prompt_top,
            n=n,
            best_of=best_of,
            grammar=grammar_of(fields, self.refuse, self._path, more_grammars),
            logit_bias=tuple(
                [(int(token), bias) for token, bias in (fields.logit_bias or {}).items()]
            ),
            allowed_token_ids=tuple(fields.allowed_token_ids or ()),
            bad_words=tuple(dict.fromkeys([*(fields.bad_words or ()), *(more_bad_words or ())])),
        )

    def refuse(self, message: str, field: str) -> BadPayload:
        """The refusal of a field, in the dialect's words."""
        return bad_payload(self._voice, message, field)

    def _choices(self, fields: SamplingFields, temperature: float) -> tuple[int, int]:
        best_of = fields.best_of or fields.n or 1
        n = fields.n or best_of
        path = self._path
        if best_of < n:
            raise self.refuse(
                f"{path}best_of={best_of}: expected at least n={n}.", f"{path}best_of"
            )
        if best_of > 1 and temperature == 0.0:
            field = f"{path}best_of" if fields.best_of else f"{path}n"
            raise self.refuse(
                f"{field}={best_of}: several answers need sampling; set a temperature above 0.",
                field,
            )
        return n, best_of
