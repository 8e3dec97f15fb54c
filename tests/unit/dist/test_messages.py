"""The messages survive the way across a process border."""

from __future__ import annotations

import msgspec
import pytest

from lmi.core import (
    BadPayload,
    BuildError,
    EngineDead,
    EngineError,
    Finish,
    LmiError,
    ModelError,
    OutOfMemory,
    TooLong,
)
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest, CoreStats


@pytest.mark.parametrize(
    "message",
    [
        CoreRequest(1, (1, 2), temperature=0.5, seed=-1, stop_token_ids=(3,), logprobs=0),
        CoreEvent(1, 0, 17),
        CoreEvent(1, 3, 17, Finish.EOS, -0.5, ((17, -0.5), (3, -1.5))),
        CoreEvent(1, 0, None, Finish.ERROR, detail=CoreDetail(error=CoreError("TooLong", "x"))),
        CoreEvent(1, 0, 5, detail=CoreDetail(prompt=((4, None), (5, -2.0)))),
        CoreStats(running=3, cancelled=9),
    ],
)
def test_a_message_is_the_same_after_the_way(message: msgspec.Struct) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)) == message


@pytest.mark.parametrize(
    "error",
    [
        EngineError("a"),
        OutOfMemory("b"),
        BadPayload("c", field="top_p"),
        TooLong("d", field="inputs"),
        ModelError("e"),
    ],
)
def test_an_error_keeps_class_text_and_field(error: LmiError) -> None:
    back = CoreError.of(error).exception()
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert getattr(back, "field", None) == getattr(error, "field", None)


@pytest.mark.parametrize("error", [BuildError("x"), EngineDead("x")])
def test_an_error_of_another_kind_arrives_as_an_engine_error(error: LmiError) -> None:
    assert type(CoreError.of(error).exception()) is EngineError
