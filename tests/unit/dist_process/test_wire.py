"""Messages survive the wire, however it cuts them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lmi.core import (
    Adapter,
    BadPayload,
    ConfigError,
    EngineDead,
    EngineError,
    EngineInfo,
    Finish,
    Grammar,
    LmiError,
    ModelError,
    OutOfMemory,
    UnknownAdapter,
)
from lmi.dist import DistConfig
from lmi.dist.foreign import ForeignConfig
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest, CoreStats
from lmi.dist.wire import (
    AddAdapter,
    Answered,
    Cancel,
    Close,
    DropAdapter,
    Failed,
    Progress,
    Ready,
    Start,
    Stepped,
    Submit,
    decode_from_front,
    decode_from_worker,
    frame,
)
from lmi.ipc.framing import Deframer

FROM_FRONT = [
    Start(DistConfig(Path("/a model"), max_batch=3, dtype="float32"), "module:name"),
    Submit(CoreRequest(2**40, (1, 2, 3), seed=2**64 - 1, temperature=0.5, stop_token_ids=(4,))),
    Submit(CoreRequest(1, tuple(range(100_000)), seed=-(2**63))),
    Cancel(7),
    Start(ForeignConfig("x", Path("/t"), {"a": [1, {"b": None}]}, {"X": "1"}), "module:name"),
    Submit(
        CoreRequest(
            1,
            (1,),
            prompt_top=3,
            grammar=Grammar("regex", "a+"),
            logit_bias=((1, -2.5),),
            allowed_token_ids=(1, 2),
            bad_words=("a b",),
            adapter="lora",
        )
    ),
    AddAdapter(3, Adapter("a", Path("/a"), preload=False, pin=True)),
    DropAdapter(4, "a"),
    Close(),
]
FROM_WORKER = [
    Progress("weights", 3, 2**40),
    Ready(EngineInfo("lmi-dist", "model", 10, 20, 30, (("a", "b"), ("c", "d")))),
    Stepped([], CoreStats(1, 2, 3)),
    Stepped(
        [
            CoreEvent(1, 0, 5),
            CoreEvent(1, 1, 6, Finish.LENGTH, -0.25, ((6, -0.25), (7, -1.5))),
            CoreEvent(2, 0, None, Finish.ERROR, detail=CoreDetail(error=CoreError("TooLong", "!"))),
            CoreEvent(3, 0, 5, detail=CoreDetail(prompt=((1, None), (2, -0.5)), cached_tokens=1)),
        ],
        CoreStats(kv_blocks_total=9),
    ),
    Failed.of(ModelError("corrupt")),
    Answered(3),
    Answered(4, CoreError.of(UnknownAdapter("nobody", field="name"))),
]


def test_messages_survive_the_wire() -> None:
    for message in FROM_FRONT:
        assert [decode_from_front(part) for part in Deframer().feed(frame(message))] == [message]
    for message in FROM_WORKER:
        assert [decode_from_worker(part) for part in Deframer().feed(frame(message))] == [message]


def test_frames_survive_any_cut() -> None:
    stream = b"".join(frame(message) for message in FROM_WORKER * 5)
    rng = random.Random(3)
    for _ in range(50):
        deframer, found, place = Deframer(), [], 0
        while place < len(stream):
            size = rng.choice([1, 2, 3, 5, 50, 500])
            found += [*deframer.feed(stream[place : place + size])]
            place += size
        assert [decode_from_worker(part) for part in found] == FROM_WORKER * 5


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelError("corrupt"), ModelError),
        (ConfigError("dtype", None, "here", "expected one"), ConfigError),
        (OutOfMemory("too large"), OutOfMemory),
        (BadPayload("wrong", field="a.b"), BadPayload),
        (EngineError("broken"), EngineDead),
        (EngineDead("gone"), EngineDead),
    ],
)
def test_a_failure_keeps_its_kind_and_its_words(error: LmiError, kind: type[LmiError]) -> None:
    (part,) = Deframer().feed(frame(Failed.of(error)))
    failed = decode_from_worker(part)
    assert isinstance(failed, Failed)
    again = failed.exception()
    assert type(again) is kind
    assert str(again) == str(error)
    for name in ("field", "option", "value", "source", "want"):
        assert getattr(again, name, None) == getattr(error, name, None)
