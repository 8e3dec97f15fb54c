"""Greedy tokens equal transformers.generate in float32, whatever runs beside a request."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from lmi.core import Finish
from lmi.dist.core import DistConfig, EngineCore
from lmi.dist.messages import CoreRequest, CoreStats
from tests.support.models import CONFIGS
from tests.tokens.conftest import NEW_TOKENS, PROMPTS, Reference

pytestmark = [
    pytest.mark.slow,
    # transformers' GPT-BigCode scripts a function when it is imported.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

GetReference = Callable[[str], Reference]

# The order of arrival, and which requests come while others already run.
SHUFFLED = random.Random(0).sample(range(len(PROMPTS)), len(PROMPTS))
BYSTANDERS = 4  # requests that are cancelled on the way


def answers_of(
    core: EngineCore, *, order: list[int], at_once: int, bystanders: int = 0
) -> tuple[list[list[int]], CoreStats]:
    """Serve PROMPTS, `at_once` first and one more every other step; cancel the bystanders."""
    answers: list[list[int]] = [[] for _ in PROMPTS]
    finished: set[int] = set()
    queue = [CoreRequest(i, PROMPTS[i], max_new_tokens=NEW_TOKENS) for i in order]
    for number in range(bystanders):
        request = CoreRequest(1000 + number, PROMPTS[number], max_new_tokens=NEW_TOKENS)
        queue.insert(4 * number, request)
    steps = 0
    while queue or core.has_work:
        count = at_once if steps == 0 else steps % 2
        for request in queue[:count]:
            core.add(request)
        del queue[:count]
        for event in core.step():
            if event.request_id >= 1000:
                if event.token is not None:
                    core.cancel(event.request_id)
                continue
            assert event.request_id not in finished
            assert event.token is not None
            answers[event.request_id].append(event.token)
            if event.finish is not None:
                assert event.finish in (Finish.LENGTH, Finish.EOS)
                finished.add(event.request_id)
        steps += 1
    stats = core.stats()
    assert len(finished) == len(PROMPTS)
    assert (stats.kv_blocks_used, stats.running, stats.waiting) == (0, 0, 0)
    return answers, stats


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_a_large_batch_gives_the_tokens_of_generate(reference: GetReference, family: str) -> None:
    expected = reference(family)
    core = EngineCore(DistConfig(expected.folder, dtype="float32", prefill_tokens=4096))
    answers, stats = answers_of(core, order=list(range(len(PROMPTS))), at_once=len(PROMPTS))
    assert answers == expected.answers
    assert len({token for answer in answers for token in answer}) > 20, "the model is too dull"
    assert (stats.chunks, stats.preemptions) == (0, 0)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_chunking_preemption_and_cancels_change_no_token(
    reference: GetReference, family: str
) -> None:
    expected = reference(family)
    core = EngineCore(
        DistConfig(expected.folder, dtype="float32", max_batch=8, prefill_tokens=40, kv_blocks=40)
    )
    answers, stats = answers_of(core, order=SHUFFLED, at_once=12, bystanders=BYSTANDERS)
    assert answers == expected.answers
    assert stats.chunks > 10
    assert stats.preemptions > 2
    assert stats.cancelled == BYSTANDERS


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("block_size", [1, 7, 64])
def test_the_block_size_changes_no_token(
    reference: GetReference, family: str, block_size: int
) -> None:
    expected = reference(family)
    core = EngineCore(
        DistConfig(
            expected.folder,
            dtype="float32",
            max_batch=16,
            prefill_tokens=100,
            block_size=block_size,
            kv_blocks=1200 // block_size,
        )
    )
    answers, stats = answers_of(core, order=SHUFFLED, at_once=16)
    assert answers == expected.answers
    assert stats.chunks > 0
    assert stats.preemptions > 0


def test_one_after_another_gives_the_same_tokens(reference: GetReference) -> None:
    expected = reference("llama")
    core = EngineCore(DistConfig(expected.folder, dtype="float32", max_batch=1))
    answers, _ = answers_of(core, order=SHUFFLED, at_once=len(PROMPTS))
    assert answers == expected.answers
