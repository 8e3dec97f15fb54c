"""`Engine.generate`: answers to a list of prompts, over a core without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmi.core import BadPayload, EngineDead, EngineError, Finish, GenerationRequest, Sampling
from lmi.dist import DistConfig, Engine
from lmi.dist.messages import CoreEvent
from lmi.text import Tokenizer
from tests.support.drive import drive
from tests.support.scripted_core import POISON, REFUSED, ScriptedCore

PROMPTS = [(100, 101), (150,), (120, 121, 122), (130, 131)]
SAMPLING = Sampling(max_new_tokens=9)


class Interrupted(ScriptedCore):
    """Its third step is interrupted."""

    trouble: BaseException

    def step(self) -> list[CoreEvent]:
        if self._steps == 2:
            self._steps += 1
            raise self.trouble
        return super().step()


@pytest.fixture
def interrupted(
    tmp_path: Path, tokenizer: Tokenizer
) -> Callable[[BaseException], tuple[Engine, Interrupted]]:
    def make(trouble: BaseException) -> tuple[Engine, Interrupted]:
        core = Interrupted(DistConfig(tmp_path, max_batch=4))
        core.trouble = trouble
        return Engine(core, tokenizer), core

    return make


def test_answers_come_in_the_order_of_the_prompts(engine: Engine, tokenizer: Tokenizer) -> None:
    answers = engine.generate(PROMPTS, SAMPLING)
    alone = [engine.generate([prompt], SAMPLING)[0] for prompt in PROMPTS]
    assert answers == alone
    assert len({answer.text for answer in answers}) == len(PROMPTS)
    for answer, prompt in zip(answers, PROMPTS, strict=True):
        (choice,) = answer.choices
        assert choice.usage is not None
        assert choice.usage.prompt_tokens == len(prompt)
        assert choice.usage.completion_tokens == len(choice.tokens)
        assert answer.text == choice.text == "".join(token.text for token in choice.tokens)


def test_the_answers_are_those_of_submit_and_poll(engine: Engine) -> None:
    (answer,) = engine.generate([PROMPTS[2]], SAMPLING)
    said = drive(engine, [GenerationRequest(5, PROMPTS[2], SAMPLING)])[5, 0]
    assert [token.id for token in answer.choices[0].tokens] == said.ids
    assert answer.text == said.text


def test_each_prompt_may_have_its_own_sampling(engine: Engine) -> None:
    settings = [replace(SAMPLING, max_new_tokens=1 + place, n=2) for place in range(4)]
    answers = engine.generate(PROMPTS, settings)
    for place, answer in enumerate(answers):
        assert [len(choice.tokens) for choice in answer.choices] == [1 + place] * 2
        assert {choice.finish for choice in answer.choices} == {Finish.LENGTH}
    with pytest.raises(ValueError, match="3 samplings for 4 prompts"):
        engine.generate(PROMPTS, settings[:3])


def test_prompt_logprobs_come_with_the_answer(engine: Engine) -> None:
    (answer,) = engine.generate([PROMPTS[2]], replace(SAMPLING, prompt_logprobs=True, n=2))
    assert [token.id for token in answer.prompt_tokens] == list(PROMPTS[2])
    assert [token.logprob for token in answer.prompt_tokens] == [None, -0.5, -0.5]


def test_no_prompts_are_no_answers(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_a_choice_that_fails_alone_says_so(engine: Engine) -> None:
    answers = engine.generate([PROMPTS[0], (POISON, 100)], SAMPLING)
    assert isinstance(answers[1].choices[0].error, EngineError)
    assert answers[1].choices[0].finish is Finish.ERROR
    assert answers[0].choices[0].error is None


def test_a_refused_prompt_leaves_the_engine_idle(engine: Engine) -> None:
    with pytest.raises(BadPayload, match="the core refuses this"):
        engine.generate([PROMPTS[0], (REFUSED,), PROMPTS[1]], SAMPLING)
    assert engine.stats().running == 0
    assert len(engine.generate(PROMPTS, SAMPLING)) == len(PROMPTS)


def test_an_interrupt_cancels_what_runs(
    interrupted: Callable[[BaseException], tuple[Engine, Interrupted]],
) -> None:
    engine, core = interrupted(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, SAMPLING)
    assert len({request_id for request_id, _ in core.cancels}) == len(PROMPTS)
    assert engine.stats().running == 0
    assert len(engine.generate(PROMPTS, SAMPLING)) == len(PROMPTS)


def test_a_dead_engine_is_not_asked_again(
    interrupted: Callable[[BaseException], tuple[Engine, Interrupted]],
) -> None:
    engine, core = interrupted(EngineDead("gone"))
    with pytest.raises(EngineDead, match="gone"):
        engine.generate(PROMPTS, SAMPLING)
    assert core.cancels == []


def test_requests_of_others_are_not_swallowed(engine: Engine) -> None:
    engine.submit(GenerationRequest(1, PROMPTS[0], SAMPLING))
    with pytest.raises(EngineError, match="1 submitted requests are live"):
        engine.generate(PROMPTS, SAMPLING)


def test_an_engine_closes_itself_as_a_context(tmp_path: Path, tokenizer: Tokenizer) -> None:
    core = ScriptedCore(DistConfig(tmp_path, max_batch=2))
    with Engine(core, tokenizer) as engine:
        engine.submit(GenerationRequest(1, PROMPTS[0], SAMPLING))
    assert not core.has_work
