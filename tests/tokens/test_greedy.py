"""Greedy tokens equal transformers.generate in float32, whatever runs beside a request."""

from __future__ import annotations

import random

import pytest

from lmi.core import Finish
from lmi.dist.core import DistConfig, EngineCore
from lmi.dist.decoder.config import FAMILIES
from lmi.dist.messages import CoreRequest, CoreStats
from tests.support.models import CONFIGS
from tests.tokens.conftest import PROMPTS, GetReference, Reference

pytestmark = [
    pytest.mark.slow,
    # transformers' GPT-BigCode scripts a function when it is imported.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

# Those that are named in the documentation, in full; of the others fewer tokens.
HEADLINE = [
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "mixtral",
    "gpt2",
    "gpt_neox",
    "gemma",
    "gemma2",
    "gemma3",
    "falcon_7b",
    "falcon_40b",
]
OTHERS = sorted(set(CONFIGS) - set(HEADLINE))

# The order of arrival, and which requests come while others already run.
IN_ORDER = list(range(len(PROMPTS)))
SHUFFLED = random.Random(0).sample(IN_ORDER, len(IN_ORDER))
BYSTANDERS = 4  # requests that are cancelled on the way


def serve(
    config: DistConfig, expected: Reference, *, order: list[int], at_once: int, bystanders: int = 0
) -> CoreStats:
    """Serve PROMPTS, `at_once` first and one more every other step; cancel the bystanders. Check
    each answer and that nothing is left."""
    core = EngineCore(config)
    answers: dict[int, list[int]] = {index: [] for index in order}
    finished: set[int] = set()
    queue = [CoreRequest(i, PROMPTS[i], max_new_tokens=expected.new_tokens) for i in order]
    for number in range(bystanders):
        queue.insert(4 * number, CoreRequest(1000 + number, PROMPTS[number], max_new_tokens=99))
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
    assert answers == {index: expected.answers[index] for index in order}
    stats = core.stats()
    assert finished == set(order)
    assert (stats.kv_blocks_used, stats.running, stats.waiting) == (0, 0, 0)
    core.close()
    return stats


@pytest.mark.parametrize("family", HEADLINE)
def test_a_large_batch_gives_the_tokens_of_generate(reference: GetReference, family: str) -> None:
    expected = reference(family)
    config = DistConfig(expected.folder, dtype="float32", prefill_tokens=4096)
    stats = serve(config, expected, order=IN_ORDER, at_once=len(PROMPTS))
    assert (stats.chunks, stats.preemptions) == (0, 0)
    assert len({token for answer in expected.answers for token in answer}) > 40, "a dull model"


@pytest.mark.parametrize("family", HEADLINE)
def test_chunking_preemption_and_cancels_change_no_token(
    reference: GetReference, family: str
) -> None:
    expected = reference(family)
    config = DistConfig(
        expected.folder, dtype="float32", max_batch=8, prefill_tokens=40, kv_blocks=30
    )
    stats = serve(config, expected, order=SHUFFLED, at_once=12, bystanders=BYSTANDERS)
    assert stats.chunks > 10
    assert stats.preemptions > 2
    assert stats.cancelled == BYSTANDERS


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_own_layers_give_the_same_tokens(reference: GetReference, family: str) -> None:
    expected = reference(family)
    config = DistConfig(
        expected.folder,
        dtype="float32",
        max_batch=8,
        prefill_tokens=40,
        kv_blocks=30,
        runtime="transformers",
    )
    stats = serve(config, expected, order=SHUFFLED, at_once=12, bystanders=BYSTANDERS)
    assert stats.chunks > 10
    assert stats.preemptions > 2


@pytest.mark.parametrize("family", ["llama", "mistral", "mixtral", "gpt2"])
def test_shared_blocks_and_guessed_tokens_change_no_token(
    reference: GetReference, family: str
) -> None:
    expected = reference(family)
    config = DistConfig(
        expected.folder,
        dtype="float32",
        max_batch=8,
        prefill_tokens=40,
        block_size=8,
        kv_blocks=60,
        prefix_cache=True,
        speculative_tokens=3,
        speculative_ngram=1,  # these texts repeat single tokens at most
    )
    stats = serve(config, expected, order=SHUFFLED, at_once=12, bystanders=BYSTANDERS)
    assert stats.preemptions > 2
    assert stats.reused_tokens > 50
    assert stats.guessed_tokens > stats.accepted_tokens > 0


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_give_the_tokens_of_generate_too(
    reference: GetReference, family: str
) -> None:
    expected = reference(family, new_tokens=20)
    config = DistConfig(
        expected.folder,
        dtype="float32",
        max_batch=12,
        prefill_tokens=60,
        block_size=4,
        kv_blocks=100,
    )
    stats = serve(config, expected, order=SHUFFLED, at_once=16, bystanders=BYSTANDERS)
    assert stats.chunks > 10
    assert stats.preemptions > 0


@pytest.mark.parametrize("block_size", [1, 7, 64])
def test_the_block_size_changes_no_token(reference: GetReference, block_size: int) -> None:
    expected = reference("mistral")
    config = DistConfig(
        expected.folder,
        dtype="float32",
        max_batch=16,
        prefill_tokens=100,
        block_size=block_size,
        kv_blocks=800 // block_size,
    )
    stats = serve(config, expected, order=SHUFFLED, at_once=16)
    assert stats.chunks > 0
    assert stats.preemptions > 0


def test_one_after_another_gives_the_same_tokens(reference: GetReference) -> None:
    expected = reference("llama")
    config = DistConfig(expected.folder, dtype="float32", max_batch=1)
    serve(config, expected, order=SHUFFLED[:6], at_once=6)
