"""The contract of every engine: one function for each thing that must hold.

A check gets a subject and an engine of it that is idle, leaves it idle, and raises Violation. It
knows nothing of the engine but the protocol, so that it runs over engines of any kind, and over
those that are broken on purpose (`test_broken_engines.py`), each of which must be caught.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lmi.core import Engine
from tests.contract import checks_of_answers as answers
from tests.contract import checks_of_conduct as conduct
from tests.contract.subject import Subject

Check = Callable[[Subject, Engine], None]

CHECKS: Final[tuple[Check, ...]] = (
    answers.one_token_is_one_delta,
    answers.many_more_requests_than_places_all_finish,
    answers.the_same_holds_for_a_front_that_polls_only_when_woken,
    answers.a_stop_string_over_two_tokens_ends_the_text_before_it,
    answers.no_part_of_a_stop_string_is_ever_said,
    answers.a_stop_token_ends_the_choice_and_says_nothing,
    answers.characters_of_several_tokens_come_out_whole,
    answers.the_same_seed_gives_the_same_tokens,
    answers.a_request_gives_the_same_alone_and_in_a_crowd,
    answers.every_choice_has_its_own_finish,
    answers.the_prompt_comes_back_with_logprobs_where_asked,
    conduct.a_cancelled_request_finishes_whenever_it_was_cancelled,
    conduct.cancelling_at_random_harms_nobody_else,
    conduct.the_longest_prompt_is_served_and_one_longer_is_refused,
    conduct.a_refused_request_leaves_nothing_behind,
    conduct.close_is_idempotent_also_with_live_requests,
    conduct.an_engine_that_dies_with_live_requests_says_so,
    conduct.an_engine_that_dies_idle_wakes_its_caller,
    conduct.an_error_harms_one_request,
)
