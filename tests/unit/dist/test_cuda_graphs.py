"""Graphed decode steps on the CPU: what a replay reads and writes, with a recording for a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmi.dist.config import DistConfig
from lmi.dist.cuda_graphs import GraphedModel, capture_sizes
from lmi.dist.decoder.config import DecoderConfig, read_decoder_config
from lmi.dist.decoder.decoder import Decoder
from lmi.dist.decoder.load import load_decoder
from lmi.dist.gpu_memory import cache_budget, heaviest_prompts, run_heaviest_step
from lmi.dist.messages import CoreRequest
from lmi.dist.runner import Runner
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence
from lmi.dist.speculate import NgramGuesser
from tests.support.tiny_llama import VOCABULARY, write_tiny_llama

BLOCKS, BLOCK, MAX_BATCH, MAX_LEN = 40, 16, 6, 64


class Recording:
    """What a CUDA graph is: the same work over the same memory, its output in the same place."""

    def __init__(self, work: Callable[[], torch.Tensor]) -> None:
        self._work = work
        self.output = work().clone()
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.output.copy_(self._work())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


def config_of(folder: Path) -> DistConfig:
    return DistConfig(folder, device="cpu", dtype="float32", kernels="plain")


def decoder_of(folder: Path) -> Decoder:
    known = read_decoder_config(folder)
    assert isinstance(known, DecoderConfig)
    return load_decoder(config_of(folder), known, lambda phase, done, total: None)


def runner_of(model: Decoder | GraphedModel) -> Runner:
    return Runner(
        model, blocks=BLOCKS, block_size=BLOCK, max_batch=MAX_BATCH, max_model_len=MAX_LEN
    )


def graphed(model: Decoder, recordings: list[Recording]) -> GraphedModel:
    def capture(work: Callable[[], torch.Tensor]) -> Recording:
        recordings.append(Recording(work))
        return recordings[-1]

    return GraphedModel(
        model,
        max_batch=MAX_BATCH,
        blocks_per_sequence=MAX_LEN // BLOCK,
        block_size=BLOCK,
        capture=capture,
    )


def serve(runner: Runner) -> list[list[torch.Tensor]]:
    """Greedy answers of ragged length that begin and end at different steps: logits per step."""
    scheduler = Scheduler(blocks=BLOCKS, block_size=BLOCK, max_batch=MAX_BATCH, prefill_tokens=40)
    lengths = [(3, 9), (17, 4), (30, 12), (1, 20), (16, 1), (8, 30), (40, 5)]
    found: list[list[torch.Tensor]] = [[] for _ in lengths]
    for number, (prompt, answer) in enumerate(lengths):
        ids = tuple((7 * number + place) % VOCABULARY for place in range(prompt))
        request = CoreRequest(id=number, prompt=ids, max_new_tokens=answer)
        scheduler.add(Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=MAX_LEN))
    while plan := scheduler.schedule():
        rows = iter(runner.run(plan).clone())
        for segment in plan.prefill:
            scheduler.computed(segment.sequence, segment.stop)
        for sequence in plan.decode:
            scheduler.computed(sequence, len(sequence.tokens))
        for sequence in [s.sequence for s in plan.prefill if s.last] + plan.decode:
            row = next(rows)
            found[sequence.request.id].append(row)
            sequence.tokens.append(int(row.argmax()))
            if len(sequence.tokens) == sequence.stop_at:
                scheduler.remove(sequence)
    return found


def test_replayed_steps_give_the_models_own_logits(folder: Path) -> None:
    expected = serve(runner_of(decoder_of(folder)))
    recordings: list[Recording] = []
    found = serve(runner_of(graphed(decoder_of(folder), recordings)))
    assert [len(rows) for rows in found] == [len(rows) for rows in expected]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.stack(mine), torch.stack(theirs), rtol=1e-4, atol=1e-5)
    assert sum(recording.replays > 0 for recording in recordings) >= 3


def test_each_size_is_captured_once_and_the_largest_first(folder: Path) -> None:
    recordings: list[Recording] = []
    runner_of(graphed(decoder_of(folder), recordings))
    assert [len(recording.output) for recording in recordings] == [6, 4, 2, 1]


def test_a_capture_writes_to_the_trash_block_only(folder: Path) -> None:
    model = decoder_of(folder)
    runner = runner_of(graphed(model, []))
    for cache in runner._caches:
        assert cache.keys[1:].eq(0).all()
        assert cache.values[1:].eq(0).all()


@pytest.mark.parametrize(
    ("max_batch", "sizes"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (8, [1, 2, 4, 8]),
        (20, [1, 2, 4, 8, 16, 20]),
        (100, [1, 2, 4, *range(8, 65, 8), 80, 96, 100]),
    ],
)
def test_sizes_are_dense_where_padding_would_cost_most(max_batch: int, sizes: list[int]) -> None:
    assert capture_sizes(max_batch) == sizes


@pytest.mark.parametrize(
    ("prefill_tokens", "max_batch", "model_len", "prompts"),
    [
        (10, 3, 100, [11, 1, 1]),
        (100, 3, 40, [39, 39, 25]),
        (100, 2, 40, [39, 39]),
        (1, 1, 16, [2]),
    ],
)
def test_the_heaviest_step_fills_the_prefill_and_the_batch(
    prefill_tokens: int, max_batch: int, model_len: int, prompts: list[int]
) -> None:
    config = DistConfig(Path("m"), prefill_tokens=prefill_tokens, max_batch=max_batch)
    assert heaviest_prompts(config, model_len) == prompts


def test_the_heaviest_step_runs_all_its_rows_at_once(folder: Path) -> None:
    config = DistConfig(folder, prefill_tokens=600, max_batch=5)
    model = decoder_of(folder)
    seen: list[int] = []
    forward = model.forward

    def watching(ids: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(len(ids))
        return forward(ids, *rest)

    model.forward = watching
    assert run_heaviest_step(model, config) == 5
    assert seen == [605]


def test_the_cache_gets_what_weights_and_the_heaviest_step_leave_of_the_share() -> None:
    budget = cache_budget(free=60, reserved=40, peak=30, logits=2, share=0.9)
    assert budget == 90 - 30 - 4 * 2
    assert cache_budget(free=10, reserved=40, peak=45, logits=0, share=0.5) < 0


def test_rows_that_fill_up_a_batch_touch_nobodys_blocks(folder: Path) -> None:
    runner = runner_of(graphed(decoder_of(folder), []))
    scheduler = Scheduler(blocks=BLOCKS, block_size=BLOCK, max_batch=MAX_BATCH, prefill_tokens=40)
    for number in range(4):
        request = CoreRequest(id=number, prompt=(3, 4, 5 + number), max_new_tokens=9)
        scheduler.add(Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=MAX_LEN))

    def step() -> list[Sequence]:
        plan = scheduler.schedule()
        runner.run(plan)
        for sequence in plan.sequences:
            scheduler.computed(sequence, len(sequence.tokens))
            sequence.tokens.append(6)
        return list(plan.sequences)

    step()
    gone = step()[-1]
    blocks = list(gone.blocks)
    scheduler.remove(gone)
    for cache in runner._caches:
        cache.keys[blocks] = 7
    assert len(step()) == 3  # replayed as four
    for cache in runner._caches:
        assert cache.keys[blocks].eq(7).all()


def test_a_step_with_guesses_is_the_models_own(folder: Path) -> None:
    found = []
    for model in (decoder_of(folder), graphed(decoder_of(folder), [])):
        runner = runner_of(model)
        scheduler = Scheduler(
            blocks=BLOCKS,
            block_size=BLOCK,
            max_batch=MAX_BATCH,
            prefill_tokens=40,
            guesser=NgramGuesser(most=2, longest=2, free_rows=MAX_BATCH),
        )
        request = CoreRequest(id=0, prompt=(3, 4, 5, 3, 4, 5, 3), max_new_tokens=20)
        sequence = Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=MAX_LEN)
        scheduler.add(sequence)
        runner.run(scheduler.schedule())
        scheduler.computed(sequence, len(sequence.tokens))
        sequence.tokens.append(4)
        plan = scheduler.schedule()
        assert plan.guessed
        found.append(runner.run(plan))
    assert len(found[0]) == 3
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
