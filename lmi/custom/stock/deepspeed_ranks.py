"""The ranks of a model that DeepSpeed divides: processes that call the same function in step.

The worker is rank 0. It starts the others, and before each of its own calls sends them what it is
called with; all compute the same then, and meet in the sums between layers. The rule to keep: what
a call computes depends on nothing but what was sent. So every call has a seed, and a call that is
wrong is wrong on every rank, before any sum.

A rank that ends takes the worker with it, which would wait for it for ever; the ranks end with the
worker, however that ends.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from lmi.custom.stock import deepspeed_model
from lmi.custom.stock.loaded import Predict
from lmi.ipc.framing import Deframer, frame

log = logging.getLogger(__name__)

_CHUNK: Final = 1 << 16  # bytes that are read at once
_SEEDS: Final = 1 << 31
_EXIT: Final = 3  # the worker's code where a rank ended


class Start(msgspec.Struct):
    """The first message. properties: of the initialise call. meeting: where the ranks find each
    other, a file that is not there yet."""

    properties: dict[str, Any]
    rank: int
    degree: int
    meeting: str


class Call(msgspec.Struct):
    """A call that all ranks make."""

    inputs: list[Any]
    parameters: dict[str, Any]
    seed: int


class Ranks:
    """The other ranks of a worker, which is rank 0."""

    def __init__(self, properties: Mapping[str, Any], degree: int) -> None:
        """Start them. They load the model while the caller does, and meet it in `join`."""
        self._encoder = msgspec.msgpack.Encoder()
        self._folder = tempfile.TemporaryDirectory(prefix="lmi-ranks-")
        meeting = str(Path(self._folder.name, "meeting"))
        options = {key: each for key, each in properties.items() if isinstance(each, str | int)}
        self._start = Start(options, 0, degree, meeting)
        self._ranks = [self._launch(rank) for rank in range(1, degree)]
        for process in self._ranks:
            threading.Thread(target=_watch, args=(process,), daemon=True).start()

    def join(self) -> None:
        """Meet the others; for the thread that will compute."""
        deepspeed_model.join(0, self._start.degree, self._start.meeting)

    def mirror(self, predict: Predict) -> Predict:
        """The function, as one that makes the others call it too."""

        def everywhere(inputs: list[Any], **parameters: Any) -> list[Any]:
            call = Call(inputs, parameters, random.randrange(_SEEDS))
            try:
                message = frame(self._encoder, call)
            except (TypeError, OverflowError) as error:
                raise ValueError(f"inputs: expected what JSON has: {error}") from error
            for process in self._ranks:
                _write(process, message)
            deepspeed_model.seed(call.seed)
            return predict(inputs, **parameters)

        return everywhere

    def _launch(self, rank: int) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-P", "-m", "lmi.ipc.tether", str(os.getpid())),
            *(sys.executable, "-P", "-m", "lmi.custom.stock.deepspeed_ranks"),
        ]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        start = msgspec.structs.replace(self._start, rank=rank)
        _write(process, frame(self._encoder, start))
        return process


def _write(process: subprocess.Popen[bytes], message: bytearray) -> None:
    stdin = process.stdin
    assert stdin is not None, "it was asked for"
    stdin.write(message)
    stdin.flush()


def _watch(process: subprocess.Popen[bytes]) -> None:
    """Wait for a rank's end, and end this process."""
    code = process.wait()
    log.error("a rank of the model (process %d) ended with code %d", process.pid, code)
    logging.shutdown()
    os._exit(_EXIT)


def follow(source: IO[bytes]) -> None:
    """A rank's life: load the model as the first message says, then make the calls of the rest."""
    # Its parent's module: each of the two needs the other.
    from lmi.custom.stock.deepspeed import DeepSpeedService

    messages = Deframer()
    service: DeepSpeedService | None = None
    while data := os.read(source.fileno(), _CHUNK):
        for message in messages.feed(data):
            if service is None:
                start = msgspec.msgpack.decode(message, type=Start)
                deepspeed_model.join(start.rank, start.degree, start.meeting)
                service = DeepSpeedService()
                service.follow(start.properties, start.rank)
            else:
                call = msgspec.msgpack.decode(message, type=Call)
                deepspeed_model.seed(call.seed)
                try:
                    service.hf_pipeline(call.inputs, **call.parameters)
                except Exception as error:  # rank 0 has the same, and answers with it
                    log.debug("a call failed: %s", type(error).__name__)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    follow(sys.stdin.buffer)
