"""What the front and the worker say to each other, and how it is cut into frames.

A frame is its length (4 bytes, big-endian) and one message in msgpack. No pickle: neither side can
be made to run anything. Only the two processes of one engine speak this, over a socket pair that
nobody else holds, so both sides are always of one version.

    worker: Progress*  then  Ready  or  Failed      front: Start first
    worker: Stepped, one per step                   front: Submit, Cancel, at any time after Ready
            Answered, one per adapter message              AddAdapter, DropAdapter, likewise
            Failed, when the core can't go on              Close, once

With several ranks each has a socket of its own, but only rank 0 speaks on it as above: the others
hear Start, and say Failed at most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from lmi.core import Adapter, ConfigError, EngineDead, EngineError, EngineInfo, LmiError
from lmi.dist.config import DistConfig
from lmi.dist.foreign import ForeignConfig
from lmi.dist.messages import CoreError, CoreEvent, CoreRequest, CoreStats
from lmi.dist.place import ALONE, Place
from lmi.ipc import framing


class Start(Struct, frozen=True, tag=True, array_like=True):
    """Load this.

    core: `module:name` of what makes a core of a config and a progress function; of a place too
    where there are several ranks, and a `Follower` on all ranks but the first. arguments: what else
    it is told, by name, of types that msgpack has.
    """

    config: DistConfig | ForeignConfig
    core: str
    place: Place = ALONE
    arguments: dict[str, Any] = {}


class Submit(Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Add a request. If the core refuses it after all, its choices end with ERROR events."""

    request: CoreRequest


class Cancel(Struct, frozen=True, tag=True, array_like=True, gc=False):
    """End a request, or one choice of it."""

    request_id: int
    choice: int | None = None


class AddAdapter(Struct, frozen=True, tag=True, array_like=True):
    """Register an adapter; `Answered` comes back with the same number."""

    number: int
    adapter: Adapter


class DropAdapter(Struct, frozen=True, tag=True, array_like=True):
    """Forget an adapter; `Answered` comes back with the same number."""

    number: int
    name: str


class Close(Struct, frozen=True, tag=True, array_like=True):
    """Release everything and exit."""


class Progress(Struct, frozen=True, tag=True, array_like=True):
    """Loading goes on: a phase, what is done and the total."""

    phase: str
    done: int
    total: int


class Ready(Struct, frozen=True, tag=True, array_like=True):
    """The core is loaded."""

    info: EngineInfo


class Failed(Struct, frozen=True, tag=True, array_like=True):
    """The core could not be loaded or can't go on; nothing follows.

    config: option, value, source and want, where the error is a ConfigError. rank: whose core.
    """

    error: CoreError
    config: tuple[str, str | None, str, str] | None = None
    rank: int = 0

    @classmethod
    def of(cls, error: LmiError, rank: int = 0) -> Failed:
        """Describe an error so that `exception` gives it again, of its own class."""
        config = None
        if isinstance(error, ConfigError):
            config = (error.option, error.value, error.source, error.want)
        return cls(CoreError.of(error), config, rank)

    def exception(self) -> LmiError:
        """The error again. What is not about the model or its options is EngineDead."""
        if self.config is not None:
            return ConfigError(*self.config)
        error = self.error.exception()
        return EngineDead(str(error)) if type(error) is EngineError else error


class Stepped(Struct, frozen=True, tag=True, array_like=True, gc=False):
    """What one step brought, and the load after it."""

    events: list[CoreEvent]
    stats: CoreStats


class Answered(Struct, frozen=True, tag=True, array_like=True):
    """What became of an adapter message. error: None where it was done."""

    number: int
    error: CoreError | None = None


FromFront = Start | Submit | Cancel | AddAdapter | DropAdapter | Close
FromWorker = Stepped | Progress | Ready | Failed | Answered


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a message")


def _rich(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no place in a message")


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_front_decoder: Final = msgspec.msgpack.Decoder(FromFront, dec_hook=_rich)
_worker_decoder: Final = msgspec.msgpack.Decoder(FromWorker)

decode_from_front: Final = _front_decoder.decode
decode_from_worker: Final = _worker_decoder.decode


def frame(message: FromFront | FromWorker) -> bytearray:
    """A message as it goes over the socket."""
    return framing.frame(_encoder, message)
