"""The sampler against transformers' logits processors and plain definitions."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmi.dist.cumulative import invert
from lmi.dist.messages import CoreRequest
from lmi.dist.sampling import PlainPicker, Sampled, Sampler
from lmi.dist.sequence import Sequence, random_of
from lmi.dist.truncation import truncate

pytestmark = pytest.mark.slow

VOCAB = 3000
DRAWS = 1000


class Fixed(Random):
    """Always the same random number."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self._value = value

    def random(self) -> float:
        return self._value


def sequence(number: int = 0, *, answer: int = 0, **fields: Any) -> Sequence:
    prompt = fields.pop("prompt", (5, 6, 7, 6))
    request = CoreRequest(number, prompt, max_new_tokens=50, **fields)
    made = Sequence.of(request, 0, eos_ids=frozenset({2}), max_model_len=1000)
    made.tokens += [8 + i % 2 for i in range(answer)]
    return made


def logits(rows: int, *, seed: int = 0, spread: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((rows, VOCAB), generator=generator) * spread


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_k": 200},
    {"temperature": 1.0, "top_k": 2000},
    {"temperature": 1.0, "top_p": 0.3},
    {"temperature": 1.0, "top_p": 1e-9},
    # Flat logits: the mass reaches far beyond any candidate set.
    {"temperature": 50.0, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.8},
    {"temperature": 0.9, "min_p": 0.2},
    {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.1},
]


def expected(row: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    steps: list[Any] = [TemperatureLogitsWarper(options["temperature"])]
    if "top_k" in options:
        steps.append(TopKLogitsWarper(options["top_k"]))
    if "top_p" in options:
        steps.append(TopPLogitsWarper(options["top_p"]))
    if "min_p" in options:
        steps.append(MinPLogitsWarper(options["min_p"]))
    ids = torch.zeros((1, 1), dtype=torch.int64)
    scores = LogitsProcessorList(steps)(ids, row[None].clone())
    return torch.softmax(scores[0].double(), dim=-1)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_the_draws_follow_transformers_distribution(options: dict[str, Any]) -> None:
    row = logits(1)[0]
    crowd = [sequence(i, **options) for i in range(DRAWS)]
    for i, one in enumerate(crowd):
        one.random = Fixed((i + 0.5) / DRAWS)  # evenly over [0, 1): frequencies become the CDF
    sampled = Sampler().sample(row.repeat(DRAWS, 1), crowd)
    drawn = Counter(result.token for result in sampled)
    want = expected(row, options)
    found = torch.zeros(VOCAB, dtype=torch.float64)
    for token, count in drawn.items():
        assert token is not None
        found[token] = count / DRAWS
    assert (found - want).abs().max() <= 1.01 / DRAWS
    assert not found[want == 0].any(), "a token was drawn that should have been cut"


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    options = [*SETTINGS, {}, {"repetition_penalty": 1.5}, {"logprobs": 3, "temperature": 0.8}]

    def crowd() -> list[Sequence]:
        return [sequence(i, seed=i, answer=4, **extra) for i, extra in enumerate(options)]

    rows = logits(len(options), seed=1)
    together = Sampler().sample(rows.clone(), crowd())
    alone = [Sampler().sample(rows[i : i + 1].clone(), [one])[0] for i, one in enumerate(crowd())]
    assert [s.token for s in together] == [s.token for s in alone]
    assert [s.logprob for s in together] == pytest.approx([s.logprob for s in alone])


def test_greedy_rows_take_the_largest_logit() -> None:
    rows = logits(3)
    crowd = [sequence(0), sequence(1, temperature=1e-9), sequence(2, temperature=0.5, top_k=1)]
    assert [s.token for s in Sampler().sample(rows.clone(), crowd)] == rows.argmax(-1).tolist()


def test_half_precision_logits_are_sampled_in_single_precision() -> None:
    rows = logits(2).bfloat16()
    result = Sampler().sample(rows.clone(), [sequence(0), sequence(1, temperature=1.0, seed=1)])
    assert result[0].token == rows[0].argmax().item()


def test_the_repetition_penalty_is_transformers() -> None:
    row = logits(1, spread=0.5)
    one = sequence(repetition_penalty=1.7, answer=5, logprobs=0)
    want = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([one.tokens]), row.clone())
    changed = row.clone()
    Sampler().sample(changed, [one])
    assert torch.equal(changed, want)


def test_presence_and_frequency_count_the_answer_only() -> None:
    row = logits(1)
    one = sequence(presence_penalty=0.5, frequency_penalty=0.25, answer=5)  # 8 9 8 9 8
    want = row.clone()
    want[0, 8] -= 0.5 + 3 * 0.25
    want[0, 9] -= 0.5 + 2 * 0.25
    changed = row.clone()
    Sampler().sample(changed, [one])
    assert torch.allclose(changed, want)


def test_penalties_kept_from_step_to_step_equal_fresh_ones() -> None:
    sampler = Sampler()
    penalties = {"repetition_penalty": 1.3, "presence_penalty": 0.2, "frequency_penalty": 0.1}
    one = sequence(prompt=(5,), **penalties)
    for step in range(120):
        kept, fresh = logits(1, seed=step), logits(1, seed=step)
        sampler.sample(kept, [one])
        Sampler().sample(fresh, [one])
        assert torch.equal(kept, fresh)
        one.tokens.append((step * 37) % 90)
    sampler.forget(one)


def test_no_end_token_comes_before_min_new_tokens() -> None:
    row = torch.zeros((1, VOCAB))
    row[0, 2], row[0, 3], row[0, 4] = 9.0, 8.0, 7.0
    early = sequence(min_new_tokens=3, stop_token_ids=(3,), answer=2)
    late = sequence(min_new_tokens=3, stop_token_ids=(3,), answer=3)
    assert Sampler().sample(row.clone(), [early])[0].token == 4
    assert Sampler().sample(row.clone(), [late])[0].token == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_without_a_finite_maximum_fails_alone(bad: float) -> None:
    rows = logits(3)
    rows[1, 17 if bad > 0 or bad != bad else slice(None)] = bad
    crowd = [sequence(i, temperature=1.0, seed=i, logprobs=2) for i in range(3)]
    found = Sampler().sample(rows.clone(), crowd)
    assert found[1] == Sampled(None)
    again = [sequence(i, temperature=1.0, seed=i, logprobs=2) for i in (0, 2)]
    assert [found[0], found[2]] == Sampler().sample(rows[[0, 2]], again)


def test_logprobs_are_those_of_the_raw_logits() -> None:
    row = logits(1)
    one = sequence(temperature=0.5, seed=3, top_k=7, repetition_penalty=2.0, logprobs=4)
    found = Sampler().sample(row.clone(), [one])[0]
    raw = torch.log_softmax(row[0], dim=-1)
    values, ids = raw.topk(4)
    assert found.token is not None
    assert found.logprob == pytest.approx(raw[found.token].item())
    assert [i for i, _ in found.top] == ids.tolist()
    assert [v for _, v in found.top] == pytest.approx(values.tolist())


def test_seeds_name_different_streams_per_choice() -> None:
    streams = [random_of(seed, choice).random() for seed in (-1, 0, 1, 2) for choice in range(3)]
    assert len(set(streams)) == len(streams)
    assert random_of(7, 0).random() == random_of(7, 0).random()


def test_a_temperature_near_zero_and_huge_penalties_stay_finite() -> None:
    rows = logits(3, spread=100.0)
    crowd = [
        sequence(0, temperature=1.1e-5, top_p=0.9, seed=0),
        sequence(1, temperature=1e300, seed=0),
        sequence(2, repetition_penalty=1e300, frequency_penalty=1e38, answer=9),
    ]
    assert all(s.token is not None for s in Sampler().sample(rows, crowd))


def kept_by_definition(row: list[float], top_k: int, top_p: float, min_p: float) -> list[bool]:
    kth = sorted(row, reverse=True)[min(top_k, len(row)) - 1] if top_k else 0.0
    mass = sum(sorted(row, reverse=True)[: top_k or None])
    return [
        weight > 0
        and weight >= kth
        and sum(w for w in row if w > weight) < top_p * mass
        and weight >= min_p * max(row)
        for weight in row
    ]


@pytest.mark.parametrize("vocabulary", [1, 7, 128, 601, 1300])
def test_truncation_keeps_what_its_definition_says(vocabulary: int) -> None:
    random = Random(vocabulary)
    options: list[tuple[int, float, float]] = [
        (top_k, top_p, min_p)
        for top_k in (0, 1, 40, 10**6)
        for top_p in (1.0, 0.99, 0.5, 1e-9)
        for min_p in (0.0, 0.25)
        if (top_k, top_p, min_p) != (0, 1.0, 0.0)
    ]
    # Multiples of 1/64 add up without rounding, and many are equal.
    rows = [[random.randrange(64) / 64 for _ in range(vocabulary)] for _ in options]
    for row in rows:
        row[random.randrange(vocabulary)] = 1.0
    requests = [
        CoreRequest(1, (1,), temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p)
        for top_k, top_p, min_p in options
    ]
    together = truncate(torch.tensor(rows), requests)
    for row, request, (top_k, top_p, min_p), found in zip(
        rows, requests, options, together, strict=True
    ):
        # Of equals at the k-th place all stay, though only k count for top-p.
        want = kept_by_definition(row, top_k, top_p, min_p)
        assert (found > 0).tolist() == want
        assert torch.equal(truncate(torch.tensor([row]), [request])[0], found)


def test_inverting_never_hits_a_weight_of_zero() -> None:
    random = Random(0)
    for size in (1, 127, 128, 129, 1000):
        weights = torch.zeros((1, size))
        alive = sorted(random.sample(range(size), min(size, 5)))
        weights[0, alive] = 1.0
        for step, token in enumerate(alive):
            for inside in (0.0, 0.5, 1 - 1e-9):
                assert invert(weights, [(step + inside) / len(alive)]).tolist() == [token]


def test_rows_of_guesses_are_sampled_as_the_tokens_they_would_be() -> None:
    guessing, plain = (
        sequence(seed=5, temperature=1.0, min_new_tokens=2, stop_token_ids=(3,)) for _ in range(2)
    )
    rows = logits(4, seed=3)
    rows[:, 3] = 30.0  # ends the answer as soon as it may
    together = Sampler().sample(rows.clone(), [guessing] * 4)
    for row, result in enumerate(together):
        (alone,) = Sampler().sample(rows[row : row + 1].clone(), [plain])
        assert alone == result
        plain.tokens.append(9)
    assert [result.token == 3 for result in together] == [False, False, True, True]


def test_the_models_own_kernels_choose_where_nothing_is_cut() -> None:
    class Recording(PlainPicker):
        drawn = 0

        def draw(self, *given: Any) -> torch.Tensor:
            self.drawn += len(given[1])
            return super().draw(*given)

    picker = Recording()
    crowd = [sequence(i, temperature=1.0, seed=i, top_k=5 * (i % 2)) for i in range(6)]
    again = [sequence(i, temperature=1.0, seed=i, top_k=5 * (i % 2)) for i in range(6)]
    assert Sampler(picker).sample(logits(6), crowd) == Sampler().sample(logits(6), again)
    assert picker.drawn == 3
