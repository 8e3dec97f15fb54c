"""An engine in a handler's process: requests run together, stream, fail alone and are cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmi.core import ConfigError, EngineDead
from lmi.custom.answers import read_map
from lmi.custom.api import Input, Output
from lmi.custom.stock import engine_service
from lmi.custom.stock.in_process import InProcess, spec_of
from lmi.custom.stock.vllm import VLLMHandler
from lmi.engines.echo import EchoConfig, EchoEngine


@pytest.fixture
def engine() -> Iterator[InProcess]:
    running = InProcess(EchoEngine(EchoConfig(max_model_len=4000)))
    yield running
    running.close()


def request(body: Any) -> Input:
    inputs = Input()
    inputs.properties["Content-Type"] = "application/json"
    inputs.content.add("data", bytearray(json.dumps(body).encode()))
    return inputs


def asking(text: str, tokens: int = 4, **more: Any) -> Input:
    return request({"inputs": text, "parameters": {"max_new_tokens": tokens}, **more})


def body(output: Output) -> Any:
    return json.loads(output.content.value_at(0))


def test_requests_run_together_and_each_gets_its_own_answer(engine: InProcess) -> None:
    asked = [asking(f"text number {number} ", tokens=5 + number % 7) for number in range(50)]
    found = engine_service.answers(engine, asked)
    alone = [engine_service.answers(engine, [each])[0] for each in asked]
    assert [body(each) for each in found] == [body(each) for each in alone]
    assert len({body(each)["generated_text"] for each in found}) > 30


def test_a_request_of_several_texts_or_several_choices_is_answered_whole(
    engine: InProcess,
) -> None:
    texts = request({"inputs": ["one", "two"], "parameters": {"max_new_tokens": 3}})
    drawn = {"max_new_tokens": 3, "n": 2, "do_sample": True}
    choices = request({"inputs": "one", "parameters": drawn})
    several, both = engine_service.answers(engine, [texts, choices])
    assert [each["generated_text"][:3] for each in body(several)] == ["one", "two"]
    assert len(body(both)["details"]["best_of_sequences"]) == 1


def test_a_request_that_is_wrong_harms_no_other(engine: InProcess) -> None:
    found = engine_service.answers(
        engine, [asking("a"), request({"inputs": 3}), asking("b" * 50_000), asking("c")]
    )
    assert [each.code for each in found] == [200, 424, 424, 200]
    assert "inputs" in body(found[1])["error"]


def test_an_engine_without_requests_is_left_alone(engine: InProcess) -> None:
    engine_service.answers(engine, [asking("a")])
    # Two answers later the first is forgotten: an engine at rest is not polled.
    engine_service.answers(engine, [asking("b")])
    assert engine.live <= 1


def test_a_stream_joins_to_the_whole_answer(engine: InProcess) -> None:
    (whole,) = engine_service.answers(engine, [asking("some words ", 9)])
    (streamed,) = engine_service.answers(engine, [asking("some words ", 9, stream=True)])
    assert streamed.get_property("content-type") == "application/jsonlines"
    chunks = [streamed.stream_chunk(item) for item in streamed.stream_content]
    lines = [json.loads(line) for line in b"".join(chunks).splitlines()]
    assert len(lines) == 9
    assert "".join(line["token"]["text"] for line in lines) == body(whole)["generated_text"]


def test_a_reader_that_leaves_cancels_its_generation() -> None:
    slow = InProcess(EchoEngine(EchoConfig(token_seconds=0.005)))
    try:
        (streamed,) = engine_service.answers(slow, [asking("x", 8000, stream=True)])
        next(streamed.stream_content)
        streamed.stream_content.close()
        # Answered after the cancellation was: the engine takes both in order.
        engine_service.answers(slow, [asking("y", 1)])
        assert slow.engine.stats().running == 0
    finally:
        slow.close()


def test_what_is_live_fails_when_the_engine_is_closed() -> None:
    slow = InProcess(EchoEngine(EchoConfig(token_seconds=0.01)))
    answer = slow.submit(b'{"inputs": "x", "parameters": {"max_new_tokens": 8000}}', {})
    slow.close()
    with pytest.raises(EngineDead, match="closed"):
        list(answer.chunks())


class Asynchronous(engine_service.AsyncEngineService):
    """The asynchronous service over an engine that is given."""

    rolling_batch = "echo"

    def __init__(self, engine: InProcess) -> None:
        super().__init__()
        self._engine = engine
        self.initialized = True


async def gathered(found: Output | AsyncIterator[Output]) -> list[dict[str, str] | None]:
    outputs = [found] if isinstance(found, Output) else [each async for each in found]
    return [read_map(bytes(each.content.value_at(0))) for each in outputs]


def test_asynchronous_requests_run_together(engine: InProcess) -> None:
    async def run() -> list[Any]:
        service = Asynchronous(engine)
        asked = [asking(f"text {number} ", 20) for number in range(30)]
        outputs = await asyncio.gather(*(service.inference(each) for each in asked))
        return [await gathered(each) for each in outputs]

    found = asyncio.run(run())
    for number, maps in enumerate(found):
        assert len(maps) == 1
        assert maps[0]["last"] == "True"
        assert f"text {number} " in json.loads(maps[0]["data"])["generated_text"]


def test_an_asynchronous_stream_is_chunks_and_an_empty_last_one(engine: InProcess) -> None:
    async def run() -> list[dict[str, str] | None]:
        return await gathered(await Asynchronous(engine).inference(asking("ab ", 6, stream=True)))

    maps = asyncio.run(run())
    assert [each["last"] for each in maps[:-1]] == ["False"] * (len(maps) - 1)
    assert maps[-1] == {"data": "\n", "last": "True"}
    lines = "".join(each["data"] for each in maps).split("\n")
    assert len([json.loads(line) for line in lines if line]) == 6


def test_an_asynchronous_request_that_is_wrong_is_an_error_with_its_code(
    engine: InProcess,
) -> None:
    async def run(asked: Input) -> list[dict[str, str] | None]:
        return await gathered(await Asynchronous(engine).inference(asked))

    for wrong in (request({"inputs": 3}), asking("b" * 50_000)):
        (found,) = asyncio.run(run(wrong))
        assert (found["last"], found["code"]) == ("True", "424")
        assert found["error"]


def test_a_service_that_was_not_loaded_says_what_comes_first() -> None:
    with pytest.raises(RuntimeError, match=r"initialize\(properties\) comes before"):
        asyncio.run(VLLMHandler().inference(asking("x")))


def test_a_handlers_options_become_a_configuration_without_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "model.py").write_text("def handle(inputs): ...")
    told = {
        "model_dir": str(tmp_path),
        "engine": "Python",
        "handler": "handle",
        "my_own_option": "x",
        "max_model_len": "128",
        "device_id": "-1",
        "tensor_parallel_degree": 1,
        "rolling_batch": "lmi-dist",
    }
    spec = spec_of(told)
    assert (spec.engine, spec.max_model_len) == ("lmi-dist", 128)
    assert spec.model == str(tmp_path)
    assert spec_of({**told, "rolling_batch": "auto"}, "lmi-dist").engine == "lmi-dist"
    with pytest.raises(ConfigError, match="max_model_len"):
        spec_of({**told, "max_model_len": "long"})
