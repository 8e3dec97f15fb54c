"""The engines that must keep the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lmi.core import Engine
from lmi.engines import echo_script
from lmi.engines.echo import EchoConfig, EchoEngine
from tests.contract.subject import Subject
from tests.support.engines.burst import BurstEngine
from tests.support.engines.poisonable import POISON, Poisonable
from tests.support.engines.threaded import ThreadedEngine

# Few places and a short context, so that both are easily filled; blocks for half the places.
SMALL: Final = EchoConfig(max_batch=4, max_model_len=128, kv_blocks=16)
WITH_END: Final = EchoConfig(max_batch=4, max_model_len=128, eos_after=9)
# A thread that runs free has said everything before anybody can cancel.
UNHURRIED: Final = EchoConfig(max_batch=4, max_model_len=128, kv_blocks=16, token_seconds=0.0002)
WITH_LATENCY: Final = EchoConfig(
    max_batch=4, max_model_len=128, first_token_seconds=0.002, token_seconds=0.0002
)


def scripted(name: str, make: Callable[[], Engine], **more: Any) -> Subject:
    """A subject around the echo engine's tokenizer."""
    return Subject(name, make, echo_script.encode, echo_script.decode, patience=5.0, **more)


def kill_threaded(engine: Engine) -> None:
    assert isinstance(engine, ThreadedEngine)
    engine.die()


SCRIPTED: Final = (
    scripted("echo", lambda: EchoEngine(SMALL)),
    scripted("echo that ends by itself", lambda: EchoEngine(WITH_END)),
    scripted("echo with latencies", lambda: EchoEngine(WITH_LATENCY)),
    scripted("burst", lambda: BurstEngine(SMALL)),
    scripted("poisonable", lambda: Poisonable(SMALL), poison=POISON),
    scripted("threaded", lambda: ThreadedEngine(UNHURRIED), kill=kill_threaded),
)
