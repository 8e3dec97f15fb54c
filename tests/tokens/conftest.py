"""Random models and the answers that transformers' own generate gives for them, made once each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import torch

from lmi.dist.adapters import OWN_ATTENTION
from tests.support.models import make_model, ragged_prompts

PROMPTS = ragged_prompts()


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's folder and the greedy answers to PROMPTS, each up to `new_tokens` ids."""

    folder: Path
    new_tokens: int
    answers: list[list[int]]


class GetReference(Protocol):
    """Makes a family's reference once."""

    def __call__(self, family: str, new_tokens: int = 64) -> Reference: ...


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> GetReference:
    folders: dict[str, Path] = {}
    made: dict[tuple[str, int], Reference] = {}

    def get(family: str, new_tokens: int = 64) -> Reference:
        if family not in folders:
            folders[family] = make_model(tmp_path_factory.mktemp(family) / family, family)
        key = family, new_tokens
        if key not in made:
            folder = folders[family]
            made[key] = Reference(folder, new_tokens, greedy_answers(folder, new_tokens))
        return made[key]

    return get


def greedy_answers(folder: Path, new_tokens: int) -> list[list[int]]:
    """What `generate` answers. Prompts of one length share a call, so that none is padded."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = AutoConfig.from_pretrained(folder).model_type
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=OWN_ATTENTION.get(kind, "eager")
    )
    end = model.generation_config.eos_token_id
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(PROMPTS):
        by_length.setdefault(len(prompt), []).append(index)
    answers: list[list[int]] = [[] for _ in PROMPTS]
    for length, members in by_length.items():
        ids = torch.tensor([PROMPTS[index] for index in members])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens
        )
        for index, row in zip(members, out[:, length:].tolist(), strict=True):
            answers[index] = row[: row.index(end) + 1] if end in row else row
    return answers
