"""What travels between a front, the session and an engine.

`Token` and `Delta` are made once per generated token, so they are NamedTuples: frozen, and four
times cheaper to make than a frozen dataclass.

What is true of the deltas of every engine (one suite checks it for all):
1. the tokens of a choice come in order, none lost or repeated; a request id is never used twice in
a process;
2. exactly one `finish` per choice, on its last delta;
3. nothing after it;
4. every accepted request finishes: also when cancelled, out of memory, or when the engine died;
5. an error harms one request, unless the engine itself is gone (then `poll` raises EngineDead);
6. the joined text of a choice is the tokenizer's decoding of its visible ids, cut at the stop as
asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from lmi.core.errors import LmiError


class Finish(StrEnum):
    """Why a choice ended."""

    LENGTH = "length"  # max_new_tokens reached, or the context is full
    EOS = "eos"  # an end-of-sequence token
    STOP = "stop"  # a stop string or a stop token of the request
    CANCELLED = "cancelled"  # `Engine.cancel`
    ERROR = "error"  # see Delta.error


class TopToken(NamedTuple):
    """One of the most likely tokens at a position."""

    id: int
    text: str
    logprob: float


class Token(NamedTuple):
    """One token.

    text: the visible text that this token released: empty for a special token, for one that ends
    inside a character, and while a stop string may be forming; the last token of a choice carries
    what was held back. logprob: natural logarithm of the token's probability under the raw logits,
    None when not asked for. top: the `Sampling.logprobs` most likely tokens at this position, best
    first.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[TopToken, ...] = ()
    special: bool = False


class Usage(NamedTuple):
    """Tokens of one choice. cached_tokens: prompt tokens whose KV came from the prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Delta(NamedTuple):
    """What one poll brings for one choice of one request: usually one token.

    prompt: the prompt's tokens with their logprobs (the first has none), on the first delta of
    choice 0 of a request with `Sampling.prompt_logprobs`; empty otherwise. usage: on the last delta
    of a choice. error: set if and only if finish is ERROR.
    """

    request_id: int
    choice: int
    tokens: tuple[Token, ...]
    finish: Finish | None = None
    usage: Usage | None = None
    error: LmiError | None = None
    prompt: tuple[Token, ...] = ()

    @property
    def text(self) -> str:
        """The visible text of this delta."""
        tokens = self.tokens
        return tokens[0].text if len(tokens) == 1 else "".join([token.text for token in tokens])


GrammarKind = Literal["json", "regex", "choice", "grammar", "json_object", "structural_tag"]


class Grammar(NamedTuple):
    """What the generated text must match.

    text: for json the schema as JSON, for regex the expression, for choice a JSON list of texts,
    for grammar EBNF, for structural_tag its description as JSON; empty for json_object.
    """

    kind: GrammarKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen and when to stop. Greedy by default.

    temperature 0 is greedy. top_k 0 and top_p 1 are off. min_p 0 is off. A seeded request gives the
    same tokens whatever else runs beside it. stop: strings; the text is cut before the match unless
    include_stop_text. logprobs: None for no logprobs, 0 for the chosen token's, k for the k most
    likely as well. prompt_top: with prompt_logprobs, so many of the most likely tokens at each
    position of the prompt. best_of candidates are generated and the n best by mean logprob
    returned. grammar, logit_bias (token id and what is added to its logit), allowed_token_ids
    (empty: all), bad_words: an engine that lacks one of them refuses the request.
    """

    max_new_tokens: int = 30
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_text: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: bool = False
    n: int = 1
    best_of: int = 1
    prompt_top: int = 0
    grammar: Grammar | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()


OPTIONAL: Final = ("prompt_top", "grammar", "logit_bias", "allowed_token_ids", "bad_words")
"""The fields of `Sampling` that an engine may lack; set all the same, they are refused by name."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request for an engine.

    id: never used twice in a process. prompt: text, or token ids (taken as they are).
    truncate_prompt_tokens: keep only that many tokens, from the prompt's end. adapter: a registered
    LoRA's name. add_special_tokens: whether a text gets those that the tokenizer adds; a chat
    template has written its own.
    """

    id: int
    prompt: str | tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    truncate_prompt_tokens: int | None = None
    adapter: str | None = None
    add_special_tokens: bool = True
