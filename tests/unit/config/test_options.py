"""The option table is whole and agrees with itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from lmi.config.options import ANY, ENGINES, TABLE, Option, Verdict, spellings
from lmi.config.sources import variable_names, variables_of
from lmi.config.variables import VARIABLES

_KEY = re.compile(r"(?:option\.|gpu\.|cpu\.)?[a-z][A-Za-z0-9_]*")


def test_no_spelling_means_two_options() -> None:
    counted = Counter(key for option in TABLE for key in (option.key, *option.aliases))
    assert [key for key, count in counted.items() if count > 1] == []


def test_every_option_is_complete() -> None:
    for option in TABLE:
        assert _KEY.fullmatch(option.key), option.key
        assert re.fullmatch(r"\S.*[.)]", option.doc), option.key
        assert option.group, option.key
        assert set(_engines_of(option)) <= {ANY, *ENGINES}, option.key
        for reason in (*option.advisory.values(), *option.refused.values()):
            assert re.fullmatch(r".*[^.]", reason), option.key


def _engines_of(option: Option) -> Iterator[str]:
    yield from option.used
    for by_engine in (option.advisory, option.refused, option.limits):
        yield from by_engine


def test_no_engine_both_uses_and_declines_an_option() -> None:
    for option in TABLE:
        declined = option.advisory.keys() | option.refused.keys()
        assert not declined & set(option.used), option.key


def test_every_default_and_every_accepted_value_is_one_of_its_kind() -> None:
    for option in TABLE:
        if option.default is not None:
            option.kind.parse(option.default)
        for limit in option.limits.values():
            assert all(option.kind.parse(str(value)) == value for value in limit.values), option.key


def test_every_engine_has_a_verdict_and_a_reason_for_not_using_an_option() -> None:
    for option in TABLE:
        for engine in ENGINES:
            verdict, reason = option.use(engine)
            assert verdict is Verdict.USED or reason, option.key


def test_every_special_variable_sets_options_that_exist() -> None:
    for variable in VARIABLES.values():
        assert all(key in spellings() for key in variable.keys)
        assert variable.keys or variable.doc


def test_every_option_has_a_variable() -> None:
    names = set(variable_names())
    assert all(option.variable in names for option in TABLE)


def test_the_variables_of_an_option_are_the_regular_one_and_those_with_names_of_their_own() -> None:
    assert variables_of(spellings()["option.tensor_parallel_degree"]) == (
        "OPTION_TENSOR_PARALLEL_DEGREE",
        "TENSOR_PARALLEL_DEGREE",
        "SM_NUM_GPUS",
    )
