"""Services over an engine in the handler's process: what `HuggingFaceService` is with a rolling
batch, and the asynchronous handlers of vLLM and TensorRT-LLM to scripts that import them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from lmi.core import EngineError, LmiError, RequestError
from lmi.custom.api.async_output import create_non_stream_output, create_stream_chunk_output
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock.in_process import Answer, InProcess

_FAILED: Final = 424


def answers(engine: InProcess, requests: list[Input]) -> list[Output]:
    """The answers of requests that run together, in order; a stream only where it is one alone."""
    submitted: list[Answer | LmiError] = []
    for request in requests:
        try:
            submitted.append(engine.submit(_body(request), _headers(request)))
        except RequestError as error:
            submitted.append(error)
    if len(submitted) == 1 and isinstance(submitted[0], Answer) and submitted[0].parsed.streamed:
        return [_streamed(engine, submitted[0])]
    return [_whole(each) for each in submitted]


def _whole(answer: Answer | LmiError) -> Output:
    if isinstance(answer, LmiError):
        return failed(answer)
    try:
        body = b"".join(answer.chunks())
    except LmiError as error:
        return failed(error)
    return Output().add_property("content-type", answer.parsed.content_type).add(body)


def _streamed(engine: InProcess, answer: Answer) -> Output:
    def chunks() -> Any:
        try:
            yield from answer.chunks()
        finally:
            engine.cancel(answer)

    output = Output().add_property("content-type", answer.parsed.content_type)
    return output.add_stream_content(chunks(), None)


def failed(error: LmiError) -> Output:
    """The answer of a request that failed."""
    return Output().error(str(error), code=code_of(error))


def code_of(error: LmiError) -> int:
    """The HTTP status of an error."""
    return error.code if isinstance(error, RequestError | EngineError) else _FAILED


class AsyncEngineService:
    """The asynchronous handler of one engine, as scripts wrap it: `initialize`, then `inference`.

    rolling_batch: the engine's name as the option of that name has it.
    """

    rolling_batch: str

    def __init__(self) -> None:
        self.initialized = False
        self._engine: InProcess | None = None
        self._loading = asyncio.Lock()

    async def initialize(self, properties: Mapping[str, Any]) -> None:
        """Load the engine. Raises LmiError."""
        loop = asyncio.get_running_loop()
        self._engine = await loop.run_in_executor(
            None, InProcess.load, dict(properties), self.rolling_batch
        )
        self.initialized = True

    async def handle(self, inputs: Input) -> Output | AsyncIterator[Output] | None:
        """Load the engine at the first call, and answer requests; None where there is none."""
        async with self._loading:
            if not self.initialized:
                await self.initialize(inputs.get_properties())
        return None if inputs.is_empty() else await self.inference(inputs)

    async def inference(self, inputs: Input) -> Output | AsyncIterator[Output]:
        """Answer a request: an Output, or the Outputs of a stream."""
        if self._engine is None:
            raise RuntimeError("initialize(properties) comes before inference(inputs)")
        news = asyncio.Event()
        (request,) = inputs.get_batches()
        try:
            answer = self._engine.submit(_body(request), _headers(request), _setter(news))
        except RequestError as error:
            return create_non_stream_output("", error=str(error), code=code_of(error))
        chunks = self._chunks(self._engine, answer, news)
        if answer.parsed.streamed:
            return chunks
        found = [each async for each in chunks]
        return found[0]

    async def _chunks(
        self, engine: InProcess, answer: Answer, news: asyncio.Event
    ) -> AsyncIterator[Output]:
        """Each chunk as an Output; of an answer that is not streamed the only one."""
        whole = b""
        try:
            while True:
                await news.wait()
                news.clear()
                for item in answer.take():
                    if isinstance(item, LmiError):
                        yield create_stream_chunk_output(
                            "", True, error=str(item), code=code_of(item)
                        )
                        return
                    if item is None:
                        if answer.parsed.streamed:
                            yield create_stream_chunk_output("", True)
                        else:
                            yield create_non_stream_output(whole.decode())
                        return
                    if answer.parsed.streamed:
                        # The line's end is added again.
                        text = item.decode().removesuffix("\n")
                        yield create_stream_chunk_output(text, False)
                    else:
                        whole += item
        finally:
            engine.cancel(answer)


def _setter(news: asyncio.Event) -> Callable[[], None]:
    """Sets an event of the running loop from another thread."""
    loop = asyncio.get_running_loop()

    def set_news() -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(news.set)

    return set_news


def _body(request: Input) -> bytes:
    return bytes(request.get_as_bytes() or b"")


def _headers(request: Input) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in request.get_properties().items()}
