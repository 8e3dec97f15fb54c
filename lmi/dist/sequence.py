"""The state of one choice of one request while it is alive."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from random import Random
from typing import Final

from lmi.dist.messages import CoreRequest

_SEED_BITS: Final = 64


# Below this a temperature is greedy: dividing logits by it would leave float32's range.
GREEDY_TEMPERATURE: Final = 1e-5


def is_greedy(request: CoreRequest) -> bool:
    """Whether the largest logit wins, without chance."""
    return request.temperature <= GREEDY_TEMPERATURE


def is_penalised(request: CoreRequest) -> bool:
    """Whether any penalty on seen tokens is on."""
    return (
        request.repetition_penalty != 1.0
        or request.presence_penalty != 0.0
        or request.frequency_penalty != 0.0
    )


def random_of(seed: int | None, choice: int) -> Random:
    """The random numbers of a choice: the same for the same seed, whatever else runs beside it."""
    if seed is None:
        return Random()
    # Random takes the absolute value of an int; the mask keeps -1 and 1 apart.
    return Random((seed & ((1 << _SEED_BITS) - 1)) | (choice << _SEED_BITS))


@dataclass(slots=True, eq=False)
class Sequence:
    """One choice: its tokens, and how many of them have their K and V in the cache.

    tokens: prompt (the first prompt_len) and answer. done: leading tokens whose K and V are
    written. stop_at: the number of tokens at which it ends with LENGTH. end_ids: tokens that end
    it. blocks: its KV blocks; token i lives in blocks[i // block_size]. place: its row of the block
    table while it runs, else -1. prompt_logprobs: what is known so far of each prompt token after
    the first (None: not wanted). plain: its next token is always that of the largest logit, and
    nothing else is asked. cached: leading prompt tokens whose KV it found in the cache when it was
    first admitted, None before. block_names, recorded: the names of its full blocks, and how many
    of those it owns are known to the cache (`lmi.dist.prefix`).
    """

    request: CoreRequest
    choice: int
    tokens: list[int]
    stop_at: int
    end_ids: AbstractSet[int]
    random: Random
    done: int = 0
    blocks: list[int] = field(default_factory=list)
    place: int = -1
    prompt_logprobs: list[float] | None = None
    plain: bool = False
    cached: int | None = None
    block_names: list[bytes] = field(default_factory=list)
    recorded: int = 0
    prompt_len: int = field(init=False)
    _uniforms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_len = len(self.request.prompt)

    @classmethod
    def of(
        cls, request: CoreRequest, choice: int, *, eos_ids: AbstractSet[int], max_model_len: int
    ) -> Sequence:
        """The choice at its start; the answer ends where the context does."""
        return cls(
            request=request,
            choice=choice,
            tokens=list(request.prompt),
            stop_at=min(len(request.prompt) + request.max_new_tokens, max_model_len),
            end_ids=frozenset(request.stop_token_ids)
            | (frozenset() if request.ignore_eos else eos_ids),
            random=random_of(request.seed, choice),
            prompt_logprobs=[] if request.prompt_logprobs and choice == 0 else None,
            plain=is_greedy(request)
            and not is_penalised(request)
            and request.logprobs is None
            and request.min_new_tokens == 0,
        )

    @property
    def key(self) -> tuple[int, int]:
        """Request id and choice: what names it."""
        return (self.request.id, self.choice)

    @property
    def pending(self) -> int:
        """Tokens without K and V; 1 means that the next step decodes."""
        return len(self.tokens) - self.done

    @property
    def reusable(self) -> int:
        """Leading tokens that need not be computed where their KV exists.

        The last token must be, for its logits, and so must those that prompt logprobs wait for.
        """
        known = self.prompt_logprobs
        most = len(self.tokens) - 1
        return most if known is None or len(known) == self.prompt_len - 1 else min(most, len(known))

    def uniform(self, index: int) -> float:
        """The random number, 0 to 1, that decides token `index` of the answer: always the same, so
        a token may be sampled before it is known whether its turn comes."""
        drawn = self._uniforms
        while len(drawn) <= index:
            drawn.append(self.random.random())
        return drawn[index]
