"""Windows of calibration text: one length, spread over the data, special tokens in front."""

from __future__ import annotations

import pytest

from lmi.core import ModelError
from lmi.quantize.calibration import windows


class Letters:
    """One id per character; `before` and `after` are the special tokens around a text."""

    def __init__(self, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> None:
        self.before, self.after = list(before), list(after)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids = [ord(letter) for letter in text]
        return [*self.before, *ids, *self.after] if add_special_tokens else ids


def test_windows_have_one_length_and_do_not_overlap() -> None:
    data = ["".join(chr(1000 + 50 * part + place) for place in range(49)) for part in range(20)]
    found = windows(Letters(), data, 9, 64)
    assert [len(window) for window in found] == [64] * 9
    seen = [token for window in found for token in window if token != ord("\n")]
    assert len(set(seen)) == len(seen)


def test_windows_reach_from_the_first_text_to_the_last() -> None:
    found = windows(Letters(), ["a" * 99, "b" * 799, "c" * 99], 4, 50)
    assert found[0][0] == ord("a")
    assert found[-1][-2:] == [ord("c"), ord("\n")]


def test_short_texts_are_joined() -> None:
    found = windows(Letters(), ["ab"] * 100, 5, 60)
    assert len(found) == 5
    assert found[0][:6] == [ord(letter) for letter in "ab\nab\n"]


def test_each_window_begins_as_the_tokenizer_begins_a_text() -> None:
    found = windows(Letters(before=(1, 7), after=(2,)), ["x" * 500], 8, 20)
    assert all(window[:2] == [1, 7] and window[2] != 7 for window in found)
    assert all(len(window) == 20 and 2 not in window for window in found)


def test_what_a_tokenizer_adds_only_behind_a_text_is_left_out() -> None:
    assert windows(Letters(after=(2,)), ["x" * 99], 5, 20)[0] == [ord("x")] * 20


def test_little_data_gives_fewer_windows() -> None:
    assert len(windows(Letters(), ["x" * 649], 32, 100)) == 6


def test_too_little_data_says_how_much_would_do() -> None:
    with pytest.raises(ModelError, match=r"holds 399 tokens: expected 400 or more, .* 4 windows"):
        windows(Letters(), ["x" * 398], 32, 100)


def test_one_window_is_enough_where_one_is_asked_for() -> None:
    assert len(windows(Letters(), ["x" * 150], 1, 100)) == 1


def test_a_length_of_nothing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        windows(Letters(before=(1,)), ["x" * 100], 4, 1)
