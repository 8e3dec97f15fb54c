"""Repetition, presence and frequency penalties of one sequence, kept up to date token by token."""

from __future__ import annotations

import torch

from lmi.dist.messages import CoreRequest


class Penalties:
    """Which tokens a sequence has seen, as tensors that grow.

    The repetition penalty (CTRL paper, section 4.1) counts prompt and answer; presence and
    frequency count the answer only. Cost per step: the number of different tokens seen.
    """

    __slots__ = ("_counted", "_counts", "_ids", "_index", "_request")

    def __init__(self, request: CoreRequest) -> None:
        self._request = request
        self._index: dict[int, int] = {}  # token -> where it stands in the two lists
        room = min(len(request.prompt) + request.max_new_tokens, 2 * len(request.prompt) + 64)
        self._ids = torch.empty(room, dtype=torch.int64)
        self._counts = torch.zeros(room)  # times in the answer
        self._counted = 0  # tokens of the sequence taken in

    def apply(self, logits: torch.Tensor, tokens: list[int]) -> None:
        """Change one row (vocabulary) in place, after taking in the tokens that are new."""
        self._take(tokens)
        request = self._request
        seen = len(self._index)
        ids = self._ids[:seen].to(logits.device)
        values = logits[ids]
        factor = request.repetition_penalty
        if factor != 1.0:
            values = torch.where(values > 0, values / factor, values * factor)
        if request.presence_penalty or request.frequency_penalty:
            counts = self._counts[:seen].to(logits.device)
            values = values - request.frequency_penalty * counts
            values = values - request.presence_penalty * (counts > 0)
        logits[ids] = values

    def _take(self, tokens: list[int]) -> None:
        prompt_len = len(self._request.prompt)
        for position in range(self._counted, len(tokens)):
            token = tokens[position]
            place = self._index.get(token)
            if place is None:
                place = self._index[token] = len(self._index)
                if place == len(self._ids):
                    self._grow()
                self._ids[place] = token
            if position >= prompt_len:
                self._counts[place] += 1
        self._counted = len(tokens)

    def _grow(self) -> None:
        self._ids = torch.cat([self._ids, torch.empty_like(self._ids)])
        self._counts = torch.cat([self._counts, torch.zeros_like(self._counts)])
