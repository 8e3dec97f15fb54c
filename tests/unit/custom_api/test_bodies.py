"""Bodies by their content type, and arrays as bytes."""

from __future__ import annotations

import json
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.custom.api import Input, Output
from lmi.custom.api.encode_decode import decode, encode, encode_csv
from lmi.custom.api.ndlist import from_nd_list, to_nd_list, to_npz


def request(data: bytes | None) -> Input:
    inputs = Input()
    if data is not None:
        inputs.content.add("data", bytearray(data))
    return inputs


@pytest.mark.parametrize(
    ("kind", "data", "found"),
    [
        (None, b'{"a": 1}', {"a": 1}),
        (None, b"", {"inputs": ""}),
        (None, None, {"inputs": ""}),
        ("application/json", b"[1]", [1]),
        ("text/plain; charset=utf-8", "ä".encode(), {"inputs": ["ä"]}),
        ("text/csv", b"inputs\na\nb\n", {"inputs": ["a", "b"]}),
        ("text/csv", b"question,context\nq,c\n", {"inputs": [{"question": "q", "context": "c"}]}),
        ("application/x-www-form-urlencoded", b"a=b", {"inputs": "a=b"}),
        ("audio/wav", b"RIFF", {"inputs": b"RIFF"}),
        ("application/octet-stream", b"\x00", {"inputs": b"\x00"}),
    ],
)
def test_a_body_is_read_by_its_content_type(
    kind: str | None, data: bytes | None, found: object
) -> None:
    assert decode(request(data), kind) == found


def test_csv_without_header_is_numbers_where_no_header_is_required() -> None:
    rows = decode(request(b"1,2\n3.5,-4e2\n"), "text/csv", require_csv_headers=False)
    assert rows.tolist() == [[1, 2], [3.5, -400]]
    with pytest.raises(ValueError, match="needs a header"):
        decode(request(b"1,2\n"), "text/csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"1,2\n1,x\n", "line 2 .* no number"), (b"1,nan\n", "NaN"), (b"1,2\n3\n", "line 2.*1 cells")],
)
def test_cells_that_are_no_numbers_are_refused_with_their_line(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(request(text), "text/csv", require_csv_headers=False)


def test_a_prediction_is_written_by_the_accepted_type() -> None:
    table = [{"a": 1, "b": "x,y"}, {"a": 2, "b": "z"}]
    written = encode(Output(), table, "text/csv")
    assert written.content.value_at(0) == b'a,b\n1,"x,y"\n2,z\n'
    assert written.get_property("Content-Type") == "text/csv"
    written = encode(Output(), table, None)
    assert json.loads(written.content.value_at(0)) == table
    arrays = [np.arange(3), np.ones((2, 2), np.float32)]
    for kind in ("tensor/npz", "tensor/ndlist"):
        written = encode(Output(), arrays, kind)
        back = decode(request(bytes(written.content.value_at(0))), kind)["inputs"]
        for one, other in zip(arrays, back, strict=True):
            assert one.dtype == other.dtype
            assert (one == other).all()


def test_csv_takes_rows_single_values_and_arrays() -> None:
    assert encode_csv([[1, 2], [3, 4]]) == "1,2\n3,4\n"
    assert encode_csv([1, 2]) == "1\n2\n"
    assert encode_csv(["ab", "c"]) == "ab\nc\n"
    assert encode_csv(np.array([0.5, 1.5], np.float32)) == "0.5\n1.5\n"
    assert encode_csv(np.array([[1, 2]])) == "1,2\n"
    assert encode_csv({"a": 1}) == "a\n1\n"


KINDS = ["bool", "float16", "float32", "float64", "int8", "int32", "int64", "uint8", "complex64"]


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=4)), max_size=4
    ),
    st.integers(0, 2**32 - 1),
)
def test_arrays_come_back_as_they_were(shapes: list[tuple[str, list[int]]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    arrays = [(generator.normal(size=shape) * 50).astype(kind) for kind, shape in shapes]
    back = from_nd_list(to_nd_list(arrays))
    assert [array.dtype for array in back] == [array.dtype for array in arrays]
    assert [array.shape for array in back] == [array.shape for array in arrays]
    for one, other in zip(arrays, back, strict=True):
        assert one.tobytes() == other.tobytes()


def test_an_array_of_the_other_byte_order_comes_back_equal() -> None:
    big = np.arange(4, dtype=">i4")
    assert from_nd_list(to_nd_list([big]))[0].tolist() == [0, 1, 2, 3]


def test_an_ndlist_of_djl_is_read() -> None:
    def text(value: str) -> bytes:
        return struct.pack(">h", len(value)) + value.encode()

    data = struct.pack(">2f", 1.5, -2)
    encoded = (
        struct.pack(">i", 1)
        + text("NDAR")
        + struct.pack(">iB", 3, 1)
        + text("name")
        + text("default")
        + text("FLOAT32")
        + struct.pack(">iqq", 2, 1, 2)
        + struct.pack(">i2H", 2, ord("N"), ord("C"))
        + b">"
        + struct.pack(">i", len(data))
        + data
    )
    (array,) = from_nd_list(encoded)
    assert array.tolist() == [[1.5, -2.0]]


def test_an_npz_is_read_in_the_place_of_an_ndlist() -> None:
    (array,) = from_nd_list(to_npz([np.arange(3)]))
    assert array.tolist() == [0, 1, 2]


def test_objects_are_neither_written_nor_unpickled() -> None:
    with pytest.raises(ValueError, match="no form in an ndlist"):
        to_nd_list([np.array([{}])])
    with pytest.raises(ValueError, match="allow_pickle"):
        from_nd_list(to_npz([np.array([{}])]))


def test_garbage_is_refused_and_allocates_nothing() -> None:
    rng = random.Random(5)
    whole = bytes(to_nd_list([np.arange(6).reshape(2, 3), np.ones(2)]))
    for _ in range(2000):
        broken = bytearray(whole[: rng.randrange(len(whole))])
        for _ in range(rng.randrange(4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            found = from_nd_list(broken)
        except ValueError:
            continue
        assert sum(array.nbytes for array in found) <= len(whole)
