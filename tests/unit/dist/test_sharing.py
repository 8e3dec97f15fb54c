"""Blocks that several sequences share, against a cache of which every slot's content is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lmi.dist.messages import CoreRequest
from lmi.dist.prefix import NoPrefixes, PrefixCache
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence
from lmi.dist.speculate import NgramGuesser
from tests.support.simulated_model import END, SimulatedModel, advance

BLOCK = 4


@dataclass
class Simulation:
    """A planner over a simulated model, and what has come of each sequence."""

    blocks: int = 200
    max_batch: int = 8
    prefill_tokens: int = 64
    cache: bool = False
    guesses: int = 0
    model: SimulatedModel = field(default_factory=lambda: SimulatedModel(BLOCK))
    ended: list[Sequence] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.planner = Scheduler(
            blocks=self.blocks,
            block_size=BLOCK,
            max_batch=self.max_batch,
            prefill_tokens=self.prefill_tokens,
            prefixes=PrefixCache(BLOCK) if self.cache else NoPrefixes(),
            guesser=NgramGuesser(most=self.guesses, longest=3, free_rows=32),
        )

    def add(self, number: int, prompt: list[int], answer: int, choices: int = 1) -> list[Sequence]:
        request = CoreRequest(number, tuple(prompt), max_new_tokens=answer, choices=choices)
        made = [
            Sequence.of(request, choice, eos_ids=frozenset({END}), max_model_len=10_000)
            for choice in range(choices)
        ]
        for one in made:
            self.planner.add(one)
        return made

    def step(self) -> None:
        plan = self.planner.schedule()
        self.planner.pool.take_dirty()  # of a preempted sequence
        assert plan, "nothing moves"
        self.check()
        self.ended += advance(self.planner, plan, self.model.run(plan))
        self.steps += 1

    def finish(self) -> None:
        while any(True for _ in self.planner):
            self.step()
            assert self.steps < 20_000
        assert self.planner.pool.used == 0
        for sequence in self.ended:
            assert sequence.tokens == self.model.answer(sequence)

    def check(self) -> None:
        """The owners of each block are those that list it, and no place is taken twice."""
        owned: dict[int, int] = {}
        for one in self.planner:
            for block in one.blocks:
                owned[block] = owned.get(block, 0) + 1
        assert 0 not in owned
        pool = self.planner.pool
        assert {b: pool.owners(b) for b in range(1, self.blocks + 1) if pool.owners(b)} == owned
        assert pool.used == len(owned)
        places = [one.place for one in self.planner if one.place >= 0]
        assert len(set(places)) == len(places) <= self.max_batch


def text(length: int, seed: int = 0) -> list[int]:
    """Texts of different seeds, 0 to 3, differ from the first token on."""
    return [1 + (seed + i * i * 7 + i // 3) % 4 for i in range(length)]


@pytest.mark.parametrize("prompt", [4, 10, 11, 12, 13])
def test_choices_share_a_prompt_that_is_computed_once(prompt: int) -> None:
    simulation = Simulation()
    family = simulation.add(0, text(prompt), 20, choices=4)
    simulation.step()
    assert simulation.model.computed == prompt
    simulation.step()
    # Each of the others computes the last token once more, for its logits.
    assert simulation.model.computed == prompt + 1 + 3
    assert simulation.planner.reused_tokens == 3 * (prompt - 1)
    whole = (prompt - 1) // BLOCK
    assert {tuple(one.blocks[:whole]) for one in family} == {tuple(family[0].blocks[:whole])}
    assert len({one.blocks[whole] for one in family}) == 4
    assert all(simulation.planner.pool.owners(block) == 4 for block in family[0].blocks[:whole])
    simulation.finish()


def test_choices_whose_first_one_ends_at_once_all_get_their_answer() -> None:
    simulation = Simulation()
    simulation.add(0, text(9), 1, choices=3)
    simulation.finish()
    assert [one.choice for one in simulation.ended] == [0, 1, 2]


def test_a_later_request_goes_ahead_of_choices_that_wait_for_a_prompt() -> None:
    simulation = Simulation(prefill_tokens=20)
    simulation.add(0, text(30), 5, choices=3)
    simulation.add(1, text(6, seed=1), 5)
    simulation.step()
    plan = simulation.planner.schedule()
    assert [(s.sequence.key, s.start, s.stop) for s in plan.prefill] == [
        ((0, 0), 20, 30),
        ((1, 0), 0, 6),
    ]
    assert simulation.planner.waiting == 2
    simulation.ended += advance(simulation.planner, plan, simulation.model.run(plan))
    plan = simulation.planner.schedule()
    assert [one.key for one in plan.admitted] == [(0, 1), (0, 2)]


@pytest.mark.parametrize("gone", ["cancelled", "preempted"])
def test_when_the_choice_that_computes_the_prompt_goes_another_does(gone: str) -> None:
    simulation = Simulation(prefill_tokens=8, blocks=12)
    first, *others = simulation.add(0, text(20), 12, choices=3)
    simulation.step()
    assert simulation.planner.waiting == 2
    if gone == "cancelled":
        simulation.planner.remove(first)
    else:
        simulation.planner._preempt_youngest()
    assert simulation.planner.running == 0
    simulation.finish()
    assert set(others) <= set(simulation.ended)


def test_a_parked_choice_can_be_cancelled() -> None:
    simulation = Simulation(prefill_tokens=8)
    first, second, third = simulation.add(0, text(20), 3, choices=3)
    simulation.step()
    simulation.planner.remove(second)
    simulation.planner.remove(third)
    simulation.finish()
    assert simulation.ended == [first]


def test_a_prompt_that_begins_alike_is_computed_from_where_it_differs() -> None:
    simulation = Simulation(cache=True)
    simulation.add(0, text(18), 3)
    simulation.finish()
    before = simulation.model.computed
    again, longer, other = (
        simulation.add(number, prompt, 1)[0]
        for number, prompt in enumerate([text(18), [*text(17), 4, 4, 4], [*text(7), 3, 3]], 1)
    )
    simulation.finish()
    assert [one.cached for one in (again, longer, other)] == [16, 16, 4]
    assert simulation.model.computed - before == 2 + 4 + 5


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    simulation = Simulation(cache=True)
    simulation.add(0, text(16), 1)
    simulation.finish()
    again = simulation.add(1, text(16), 1)[0]
    plan = simulation.planner.schedule()
    assert [(s.start, s.stop) for s in plan.prefill] == [(12, 16)]
    assert again.cached == 12


def test_prompt_logprobs_are_asked_of_every_position() -> None:
    simulation = Simulation(cache=True)
    simulation.add(0, text(18), 1)
    simulation.finish()
    request = CoreRequest(1, tuple(text(18)), 1, prompt_logprobs=True)
    one = Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=100)
    simulation.planner.add(one)
    assert [(s.start, s.stop) for s in simulation.planner.schedule().prefill] == [(0, 18)]


def test_a_preempted_sequence_finds_its_own_blocks_again() -> None:
    simulation = Simulation(cache=True)
    one = simulation.add(0, text(10), 30)[0]
    for _ in range(12):
        simulation.step()
    computed = simulation.model.computed
    simulation.planner._preempt_youngest()
    simulation.step()
    assert simulation.model.computed - computed == len(one.tokens) - 1 - 20
    assert one.cached == 0, "what a client is told is of its prompt, at the first time"
    simulation.finish()


def test_the_longest_unused_blocks_make_room() -> None:
    simulation = Simulation(cache=True, blocks=12)
    for number in range(3):  # four blocks each: the pool is full of what is known
        simulation.add(number, text(13, seed=number), 1)
        simulation.finish()
    assert simulation.planner.pool.free == 12
    simulation.add(3, text(13, seed=0), 1)  # makes the first the last used
    simulation.finish()
    simulation.add(4, text(20, seed=3), 1)
    simulation.finish()
    kept = []
    for seed in range(3):
        one = simulation.add(10 + seed, text(13, seed=seed), 1)[0]
        found = simulation.planner._find(one)
        assert found is not None
        kept.append(found.tokens)
        simulation.planner.remove(one)
    assert kept[0] == 12
    assert kept[1] < kept[2]


def test_a_tainted_block_gets_no_name_from_those_that_go_on_with_it() -> None:
    simulation = Simulation(cache=True)
    family = simulation.add(0, text(10), 30, choices=2)
    simulation.step()
    plan = simulation.planner.schedule()  # the second forks, and has not taken note of anything
    simulation.planner.remove(family[0], tainted=True)
    plan.decode.remove(family[0])
    simulation.planner.pool.take_dirty()
    advance(simulation.planner, plan, simulation.model.run(plan))
    assert simulation.planner.pool.tainted == set(family[1].blocks[:2])
    again = simulation.add(1, text(10), 1)[0]
    simulation.step()
    assert again.cached == 0
    simulation.finish()


def test_idle_blocks_that_a_newcomer_shares_are_not_free_for_it_too() -> None:
    simulation = Simulation(cache=True, blocks=12)
    simulation.add(0, text(33), 1)
    simulation.finish()
    short = simulation.add(1, text(3, seed=1), 3)[0]
    simulation.step()
    # Eight known blocks and three others: four more than the known ones are not to be had.
    long = simulation.add(2, [*text(32), *text(13, seed=2)], 2)[0]
    simulation.step()
    assert (short.place >= 0, long.place) == (True, -1)
    simulation.finish()
    assert long.cached == 32


def test_tainted_blocks_are_found_by_nobody_and_cleaned_by_their_last_owner() -> None:
    simulation = Simulation(cache=True)
    planner = simulation.planner
    one = simulation.add(0, text(18), 9)[0]
    simulation.step()
    two = simulation.add(1, text(18), 9)[0]
    simulation.step()
    assert two.blocks[:4] == one.blocks[:4]
    own, shared = one.blocks[4:], one.blocks[:4]
    planner.remove(one, tainted=True)
    assert sorted(planner.pool.take_dirty()) == sorted(own)
    three = simulation.add(2, text(18), 9)[0]
    simulation.step()
    assert three.cached == 0
    planner.remove(two)
    assert sorted(planner.pool.take_dirty()) == sorted(shared)
    assert planner.pool.take_dirty() == []
    simulation.finish()


WORK = st.lists(
    st.tuples(
        st.integers(1, 40),  # prompt
        st.integers(1, 40),  # answer
        st.integers(0, 30),  # arrival
        st.integers(0, 2),  # prompts of one seed begin alike
        st.integers(1, 4),  # choices
    ),
    max_size=14,
)


# Shrinking a failure would take longer than the failure is worth: it names its example anyway.
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    work=WORK,
    blocks=st.integers(20, 50),
    max_batch=st.integers(1, 6),
    prefill_tokens=st.integers(1, 50),
    cache=st.booleans(),
    guesses=st.integers(0, 5),
    cancels=st.dictionaries(st.integers(0, 13), st.integers(0, 60), max_size=6),
)
def test_nobody_reads_the_kv_of_other_tokens_and_all_answers_are_right(
    work: list[tuple[int, int, int, int, int]],
    blocks: int,
    max_batch: int,
    prefill_tokens: int,
    cache: bool,
    guesses: int,
    cancels: dict[int, int],
) -> None:
    simulation = Simulation(blocks, max_batch, prefill_tokens, cache, guesses)
    arrivals = sorted(enumerate(work), key=lambda item: item[1][2])
    added: dict[int, list[Sequence]] = {}
    gone: list[Sequence] = []
    now = 0
    while arrivals or any(True for _ in simulation.planner):
        while arrivals and arrivals[0][1][2] <= now:
            number, (prompt, answer, _, seed, choices) = arrivals.pop(0)
            added[number] = simulation.add(number, text(prompt, seed), answer, choices)
        for number, when in cancels.items():
            if when == now and number in added:
                # Every other choice: those that go on must not miss what they shared.
                for one in added[number][::2]:
                    if one not in simulation.ended:
                        gone.append(one)
                        simulation.planner.remove(one, tainted=number % 2 == 0)
                        simulation.planner.pool.take_dirty()
        if any(True for _ in simulation.planner):
            simulation.step()
        now += 1
        assert now < 5_000
    simulation.finish()
    everybody = [one.key for family in added.values() for one in family]
    assert sorted(one.key for one in simulation.ended + gone) == sorted(everybody)
