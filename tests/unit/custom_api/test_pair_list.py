"""Pairs keep their order, and every way to make them works."""

from __future__ import annotations

import pytest

from lmi.custom.api import PairList


def test_every_constructor_holds_the_same_pairs() -> None:
    pairs = [("a", 1), ("b", 2)]
    made = [
        PairList(["a", "b"], [1, 2]),
        PairList(pair_list=pairs),
        PairList(pair_map=dict(pairs)),
    ]
    for each in made:
        assert list(zip(each.get_keys(), each.get_values(), strict=True)) == pairs
        assert each.size() == 2
        assert not each.is_empty()
    assert PairList().is_empty()


def test_lists_made_of_the_callers_do_not_share_them() -> None:
    keys: list[str | None] = ["a"]
    made = PairList(keys, [1])
    made.add("b", 2)
    assert keys == ["a"]


def test_unequal_keys_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="2 keys for 1 values"):
        PairList(["a", "b"], [1])


def test_pairs_are_added_in_place_and_none_is_ignored() -> None:
    made = PairList()
    made.add("b", 2)
    made.add(key="nothing", value=None)
    made.add("a", 1, index=0)
    made.add(pair=("c", 3))
    made.add("empty", b"")
    assert made.get_keys() == ["a", "b", "c", "empty"]
    assert (made.key_at(0), made.value_at(2)) == ("a", 3)
    assert made.get("empty") == b""
    assert made.get("absent") is None


def test_a_list_is_added_to_another() -> None:
    made = PairList(["a"], [1])
    made.add_all(PairList(["a", None], [2, 3]))
    made.add_all(None)
    assert made.get_keys() == ["a", "a", None]
    assert made.get("a") == 1
    assert made.get(None) == 3
