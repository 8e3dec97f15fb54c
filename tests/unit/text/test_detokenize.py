"""Incremental decoding equals decoding the whole."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.text import TextStream
from lmi.text.detokenize import WindowDetokenizer, prime
from tests.support.trained_tokenizers import CORPUS, KINDS, Kind

# Plain, combining and joined characters, some outside the basic plane, and U+FFFD itself.
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [*" ".join(CORPUS), "\ufffd", "́", "👩‍👩‍👧", "\n", "  ", "▁", "<s>", "日本"]
        ),
        max_size=40,
    ).map("".join),
)


def stream(kind: Kind, prompt: list[int], ids: list[int], *, skip: bool = True) -> str:
    hidden = kind.ours.special_ids if skip else frozenset()
    text = TextStream(kind.ours.detokenizer(prompt, skip_special_tokens=skip), hidden=hidden)
    pieces = [text.push(token_id)[0] for token_id in ids]
    return "".join(pieces) + text.flush()[0]


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, skip=st.booleans())
def test_the_joined_pieces_are_the_whole_decoded(
    kinds: dict[str, Kind], name: str, text: str, skip: bool
) -> None:
    kind = kinds[name]
    ids = kind.rust.encode(text).ids
    assert stream(kind, [], ids, skip=skip) == kind.rust.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(prompt=TEXTS, answer=TEXTS)
def test_an_answer_continues_its_prompt(
    kinds: dict[str, Kind], name: str, prompt: str, answer: str
) -> None:
    kind = kinds[name]
    before = kind.rust.encode(prompt).ids
    after = kind.rust.encode(answer, add_special_tokens=False).ids
    whole = kind.rust.decode(before + after)
    assert whole.endswith(streamed := stream(kind, before, after))
    if name != "suffixed":  # whose prompt gets a space at its end as soon as something follows
        assert kind.rust.decode(before) + streamed == whole


@pytest.mark.parametrize("name", ["byte_level", "metaspace", "word_piece", "bare"])
def test_random_ids_decode_as_the_whole_does(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    rng = random.Random(11)
    for _ in range(400):
        ids = rng.choices(range(kind.ours.vocab_size + 3), k=rng.randrange(30))
        assert stream(kind, [], ids) == kind.rust.decode(ids)


def test_byte_tokens_that_are_no_character_become_one_replacement_each(
    kinds: dict[str, Kind],
) -> None:
    kind = kinds["byte_fallback"]
    rng = random.Random(12)
    byte = [kind.rust.token_to_id(f"<0x{value:02X}>") for value in range(256)]
    valid = "aé日😀\n".encode()
    for _ in range(400):
        raw = bytearray(valid)
        for _ in range(rng.randrange(4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        streamed = stream(kind, [byte[ord("x")]], [byte[value] for value in raw])
        # By rule: split into characters and bytes of none.
        expected, rest = "", bytes(raw)
        while rest:
            for size in (1, 2, 3, 4):
                try:
                    expected += rest[:size].decode()
                except UnicodeDecodeError:
                    continue
                rest = rest[size:]
                break
            else:
                expected, rest = expected + "\ufffd", rest[1:]
        assert streamed == expected


def test_a_newline_that_is_a_byte_token_is_out_at_once(kinds: dict[str, Kind]) -> None:
    kind = kinds["byte_fallback"]
    detokenizer = kind.ours.detokenizer(kind.ours.encode("x"))
    newline = kind.rust.token_to_id("<0x0A>")
    assert detokenizer.push(newline) == "\n"


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_character_over_tokens_comes_with_its_last_token(
    kinds: dict[str, Kind], name: str
) -> None:
    kind = kinds[name]
    ids = kind.rust.encode("x🫠", add_special_tokens=False).ids
    detokenizer = kind.ours.detokenizer(kind.ours.encode("x"))
    pieces = [detokenizer.push(token_id) for token_id in ids]
    assert pieces[-1].endswith("🫠")
    assert "\ufffd" not in "".join(pieces)
    assert len(ids) >= 4


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_character_that_the_prompt_began_is_finished(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    ids = kind.rust.encode("x🫠y", add_special_tokens=False).ids
    for cut in range(1, len(ids) + 1):
        whole_characters = kind.rust.decode(ids[:cut]).rstrip("\ufffd")
        assert whole_characters + stream(kind, ids[:cut], ids[cut:]) == "x🫠y"


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_finished_and_an_unfinished_character_may_be_in_one_answer(
    kinds: dict[str, Kind], name: str
) -> None:
    kind = kinds[name]
    ids = kind.rust.encode("x🫠🫠", add_special_tokens=False).ids
    start = kind.rust.encode("x", add_special_tokens=False).ids
    whole_character = (len(ids) - len(start)) // 2
    left = 3 if name == "byte_fallback" else 1
    for cut in (1, 2):
        answer = stream(kind, ids[: len(start) + cut], ids[len(start) + cut : -1])
        assert answer == "🫠" + "\ufffd" * left
    assert whole_character >= 3


# Only the bytes tell a U+FFFD that is meant from one that stands for an open character.
MEANT = TEXTS.filter(lambda text: "\ufffd" not in text)


@settings(max_examples=60, deadline=None)
@given(prompt=MEANT, answer=MEANT, cut=st.integers(0, 3))
def test_a_window_over_bytes_says_what_the_table_says(
    kinds: dict[str, Kind], prompt: str, answer: str, cut: int
) -> None:
    kind = kinds["byte_level"]
    ids = kind.rust.encode(prompt + answer, add_special_tokens=False).ids
    start = max(0, len(kind.rust.encode(prompt, add_special_tokens=False).ids) - cut)
    window = WindowDetokenizer(lambda some: kind.rust.decode(some, skip_special_tokens=False))
    prime(window, ids[:start], frozenset())
    said = "".join([window.push(token_id) for token_id in ids[start:]]) + window.flush()
    assert said == stream(kind, ids[:start], ids[start:], skip=False)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize("answer", ["", "y", "é", "\n"])
def test_bytes_that_the_prompt_left_over_do_not_show(
    kinds: dict[str, Kind], name: str, answer: str
) -> None:
    kind = kinds[name]
    ids = kind.rust.encode("x🫠", add_special_tokens=False).ids
    after = kind.rust.encode("x" + answer, add_special_tokens=False).ids
    after = after[len(kind.rust.encode("x", add_special_tokens=False).ids) :]
    for cut in range(1, 4):
        assert stream(kind, ids[:-cut], after) == answer
        if name == "byte_level":
            window = WindowDetokenizer(kind.rust.decode)
            prime(window, ids[:-cut], frozenset())
            said = "".join([window.push(token_id) for token_id in after])
            assert said + window.flush() == answer


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "suffixed"])
def test_an_unfinished_character_at_the_end_is_flushed(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    ids = kind.rust.encode("end 🫠", add_special_tokens=False).ids
    for cut in range(len(ids) + 1):
        assert stream(kind, [], ids[:cut]) == kind.rust.decode(ids[:cut])


@pytest.mark.parametrize("name", KINDS)
def test_special_tokens_between_bytes_do_not_break_a_character(
    kinds: dict[str, Kind], name: str
) -> None:
    kind = kinds[name]
    rng = random.Random(13)
    special = sorted(kind.ours.special_ids)
    for _ in range(50):
        ids = []
        for token_id in kind.rust.encode("a 日本 🫠 b").ids:
            ids += [token_id, *rng.choices(special, k=rng.randrange(3))]
        assert stream(kind, [], ids) == kind.rust.decode(ids)


@pytest.mark.parametrize("name", KINDS)
def test_ids_without_a_token_have_no_text(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    beyond = kind.ours.vocab_size + 100
    ids = kind.rust.encode("The fox").ids
    assert stream(kind, [], [beyond, *ids, beyond]) == kind.rust.decode(ids)


def test_the_kinds_take_the_ways_meant_for_them(kinds: dict[str, Kind]) -> None:
    ways = {name: type(kind.ours.detokenizer()).__name__ for name, kind in kinds.items()}
    assert ways == {
        "byte_level": "ByteStreamDetokenizer",
        "byte_fallback": "PieceDetokenizer",
        "metaspace": "PieceDetokenizer",
        "word_piece": "PieceDetokenizer",
        "suffixed": "WindowDetokenizer",
        "bare": "PieceDetokenizer",
    }
