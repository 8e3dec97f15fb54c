"""The loops over one model, and which message is for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lmi.core import Head, LmiError
from lmi.djl.adapters import HANDLERS, administer
from lmi.djl.batches import BatchLoop
from lmi.djl.calls import batch_size, call, parts
from lmi.djl.channel import Channel
from lmi.djl.encode import Encoder
from lmi.djl.single import Single, SingleLoop
from lmi.djl.steps import StepLoop
from lmi.djl.streams import StreamLoop
from lmi.djl.wire import BATCH_SIZE, TRACKING_ID, Message, Width
from lmi.session import Served, State

_MAX_BATCH: Final = 32  # Java's default of max_rolling_batch_size
_PREDICT_TIMEOUT: Final = 120.0  # seconds; Java's default


class Loops:
    """Of one connection. `forget` cancels whatever lives."""

    def __init__(
        self,
        served: Served,
        encoder: Encoder,
        channel: Channel,
        options: Mapping[str, str],
        adapter_folders: Sequence[Path],
    ) -> None:
        """options: Java's initialise map."""
        self._served = served
        self._encoder = encoder
        self._channel = channel
        self._folders = adapter_folders
        self.rolling = rolls(options, encoder.width)
        self.streams = StreamLoop(served, encoder, channel)
        self._steps = StepLoop(
            served,
            encoder,
            max_batch=int(_number(options, "max_rolling_batch_size", _MAX_BATCH)),
            predict_timeout=_number(options, "predict_timeout", _PREDICT_TIMEOUT),
        )
        self._batches = BatchLoop(served, encoder)
        self._single = SingleLoop(served, encoder, channel)

    @property
    def failed(self) -> bool:
        """Whether the model is gone for good."""
        return self._served.health().state is State.FAILED

    def open(self, message: Message) -> None:
        """Take in a request of the async mode."""
        if message.properties.get("handler") in HANDLERS:
            self.streams.run(message, self._administer(message))
        else:
            self.streams.open(message)

    async def answer(self, message: Message) -> None:
        """Answer any other message. Raises Doomed, and ProtocolError for what can't be read."""
        write = self._channel.write
        if BATCH_SIZE not in message.properties:
            if message.properties.get("handler") in HANDLERS:
                await self._answer_administration(message)
            else:
                await self._single.answer(call(message))
        elif self.rolling:
            write(await self._steps.step(message))
        else:
            size = batch_size(message) or 0
            write(await self._batches.answer(parts(message, size)))

    def forget(self) -> None:
        """Java is gone: nobody waits for anything."""
        self.streams.forget()
        self._steps.forget()
        self._batches.forget()
        self._single.forget()

    async def _administer(self, message: Message) -> str:
        return await administer(call(message), self._served, self._folders)

    async def _answer_administration(self, message: Message) -> None:
        sink = Single(self._encoder, self._channel.write)
        try:
            line = await self._administer(message)
        except LmiError as error:
            sink.fail(error)
        else:
            sink.describe(Head(reason=line))
            sink.write(line.encode(), last=True)


def rolls(options: Mapping[str, str], width: Width) -> bool:
    """Whether Java batches by steps; its older versions do so also for `disable`."""
    chosen = options.get("rolling_batch")
    return chosen is not None and (chosen != "disable" or width is Width.SHORT)


def is_async(options: Mapping[str, str], given: bool | None) -> bool:
    """Whether Java is in async mode. given: what its command line says."""
    return bool(given) or options.get("async_mode", "").lower() == "true"


def tracked(message: Message) -> bool:
    """Whether a message is a request of the async mode."""
    return TRACKING_ID in message.properties


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    """A number of Java's map; what is wrong with one is the launch's to say."""
    try:
        value = float(options.get(name, default))
    except ValueError:
        return default
    return value if value > 0 else default
