"""Users' functions beside an engine: called as they know it, and their word is the answer."""

from __future__ import annotations

import json
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lmi.core import (
    Call,
    ConfigError,
    Delta,
    EngineError,
    Finish,
    ModelError,
    Overloaded,
    RequestError,
    Usage,
)
from lmi.custom import HooksSpec, load_hooks
from lmi.custom.loading import load_module
from lmi.schemas import SchemaConfig
from lmi.session import Accepted, Loaded, Progress, Session, SessionConfig
from tests.support.functions import write_model
from tests.support.scripted import ScriptedEngine, token
from tests.unit.session.conftest import Kept, until

pytestmark = pytest.mark.anyio

WORDS = ("one", " two", " three")


class Hooked:
    """A session with hooks over an engine in the test's hands."""

    def __init__(self, session: Session, engine: ScriptedEngine) -> None:
        self.session = session
        self.engine = engine

    def accept(self, body: object, **properties: str) -> tuple[Accepted, Kept]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sink = Kept()
        found = {"content-type": "application/json", **properties}
        return self.session.accept(Call((("data", data),), found), sink), sink

    def generate(self, words: tuple[str, ...] = WORDS, per_delta: int = 1) -> None:
        """Answer the newest request with these words, so many tokens a step."""
        request = self.engine.submitted[-1]
        tokens = [token(word, number) for number, word in enumerate(words)]
        for at in range(0, len(tokens), per_delta):
            group = tuple(tokens[at : at + per_delta])
            last = at + per_delta >= len(tokens)
            finish = Finish.EOS if last else None
            usage = Usage(3, len(tokens)) if last else None
            self.engine.push(Delta(request.id, 0, group, finish, usage))
        self.engine.wake()

    async def ask(self, body: object, per_delta: int = 1, **properties: str) -> Kept:
        before = len(self.engine.submitted)
        _, sink = self.accept(body, **properties)
        await until(lambda: len(self.engine.submitted) > before or bool(sink.ends))
        if not sink.ends:
            self.generate(per_delta=per_delta)
        await sink.ended.wait()
        return sink


@asynccontextmanager
async def hooked(folder: Path, text: str, **options: Any) -> AsyncIterator[Hooked]:
    form = options.get("form", "0.36")
    max_queue = options.pop("max_queue", 1000)
    spec = HooksSpec(write_model(folder, text), **options)
    engine = ScriptedEngine()
    engine.answer_first = "warm"

    def load(progress: Progress) -> Loaded:
        return Loaded(engine, hooks=load_hooks(spec))

    session = Session(SessionConfig("m", SchemaConfig(form=form), max_queue), load)
    session.start()
    try:
        await session.ready()
        yield Hooked(session, engine)
    finally:
        await session.close()


# Input formatters

FROM_INPUT = """
    from djl_python import Input
    from djl_python.encode_decode import decode
    from djl_python.input_parser import input_formatter
    from djl_python.request_io import TextInput

    @input_formatter
    def read(input_item: Input, **kwargs) -> TextInput:
        fields = decode(input_item, input_item.get_property("Content-Type"))
        made = TextInput(request_id=1)
        made.input_text = fields["question"]
        made.parameters = {"max_new_tokens": 7, "stream": fields.get("stream", False)}
        made.wants = kwargs["configs"]["task"]
        return made
"""

FROM_PAYLOAD = """
    from djl_python.input_parser import input_formatter

    @input_formatter
    def read(decoded_payload: dict, tokenizer=None, **kwargs) -> dict:
        decoded_payload["inputs"] = decoded_payload.pop("question")
        decoded_payload.setdefault("parameters", {})["max_new_tokens"] = 7
        return decoded_payload
"""


@pytest.mark.parametrize("text", [FROM_INPUT, FROM_PAYLOAD])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_input_formatter_makes_the_request(
    tmp_path: Path, text: str, stream: bool
) -> None:
    async with hooked(tmp_path, text, properties={"task": "x"}) as served:
        sink = await served.ask({"question": "why?", "stream": stream})
        asked = served.engine.submitted[-1]
        assert (asked.prompt, asked.sampling.max_new_tokens) == ("why?", 7)
        assert (len(sink.data.splitlines()) == 3) is stream


async def test_an_input_formatter_that_raises_fails_its_own_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hooked(tmp_path, FROM_PAYLOAD) as served:
        with pytest.raises(RequestError, match="Custom formatter failed: 'question'") as caught:
            served.accept({"inputs": "no question"})
        assert caught.value.code == 424
        assert "KeyError" in caplog.text
        assert "model.py" in caplog.text
        assert json.loads((await served.ask({"question": "why?"})).data)


async def test_an_input_formatter_that_returns_nothing_usable_is_told_what_is_wanted(
    tmp_path: Path,
) -> None:
    text = """
        from djl_python.input_parser import input_formatter
        @input_formatter
        def read(input_item, **kwargs):
            return "text"
    """
    async with hooked(tmp_path, text) as served:
        with pytest.raises(RequestError, match="expected a dict or a RequestInput"):
            served.accept({"inputs": "x"})


# Output formatters

FOR_OUTPUT = """
    import json
    from djl_python.output_formatter import RequestOutput, output_formatter

    @output_formatter
    def write(request_output: RequestOutput) -> str:
        best = request_output.sequences[request_output.best_sequence_index]
        token, at, first, last = best.get_next_token()
        said = {"text": token.text, "at": at, "log_prob": token.log_prob, "first": first}
        if last:
            said["reason"] = best.finish_reason
            said["prompt"] = request_output.input.input_text
            said["asked"] = request_output.input.parameters["max_new_tokens"]
            said["all"] = "".join(each.text for each in best.tokens)
        return json.dumps(said) + "\\n"
"""


@pytest.mark.parametrize("per_delta", [1, 2, 3])
async def test_an_output_formatter_is_called_for_each_token_streamed_or_not(
    tmp_path: Path, per_delta: int
) -> None:
    async with hooked(tmp_path, FOR_OUTPUT) as served:
        body: dict[str, Any] = {"inputs": "x", "parameters": {"max_new_tokens": 9}}
        whole = await served.ask(body, per_delta)
        assert served.engine.submitted[-1].sampling.logprobs == 0
        streamed = await served.ask({**body, "stream": True}, per_delta)
        assert len(whole.writes) == 1
    assert whole.data == streamed.data
    lines = [json.loads(line) for line in whole.data.splitlines()]
    assert [line["text"] for line in lines] == list(WORDS)
    assert [line["at"] for line in lines] == [0, 1, 2]
    assert [line["first"] for line in lines] == [True, False, False]
    assert all(line["log_prob"] == -0.5 for line in lines)
    assert lines[-1] == {
        **lines[-1],
        "reason": "eos_token",
        "prompt": "x",
        "asked": 9,
        "all": "one two three",
    }


async def test_a_formatter_of_lmi_0_25_gets_its_six_arguments(tmp_path: Path) -> None:
    text = """
        def write(token, first_token, last_token, details, generated_text, id):
            if last_token:
                return f"{token.text}|{generated_text}|{details['finish_reason']}"
            return f"{token.text}{'^' if first_token else ''}"
    """
    async with hooked(tmp_path, text, output_formatter="write") as served:
        sink = await served.ask({"inputs": "x"})
    assert sink.data == b"one^ two three|one two three|eos_token"


async def test_a_formatter_from_before_0_32_unpacks_three_values(tmp_path: Path) -> None:
    text = """
        from djl_python.output_formatter import TextGenerationOutput, output_formatter
        @output_formatter
        def write(output: TextGenerationOutput) -> str:
            token, first, last = output.sequences[output.best_sequence_index].get_next_token()
            return token.text + ("." if last else "")
    """
    async with hooked(tmp_path, text) as served:
        assert (await served.ask({"inputs": "x"})).data == b"one two three."


async def test_what_an_input_formatter_made_reaches_the_output_formatter(tmp_path: Path) -> None:
    text = textwrap.dedent(FROM_INPUT) + textwrap.dedent("""
        from djl_python.output_formatter import RequestOutput, output_formatter
        @output_formatter
        def write(output: RequestOutput) -> str:
            return output.input.wants if output.finished else ""
    """)
    async with hooked(tmp_path, text, properties={"task": "mine"}) as served:
        assert (await served.ask({"question": "x"})).data == b"mine"


async def test_several_choices_are_formatted_once_at_their_end(tmp_path: Path) -> None:
    text = """
        import json
        from djl_python.output_formatter import RequestOutput, output_formatter
        @output_formatter
        def write(output: RequestOutput) -> str:
            texts = {i: [t.text for t in s.tokens] for i, s in output.sequences.items()}
            return json.dumps([output.best_sequence_index, output.finished, texts])
    """
    async with hooked(tmp_path, text) as served:
        _, sink = served.accept({"inputs": "x", "parameters": {"n": 2, "do_sample": True}})
        number = served.engine.submitted[-1].id
        for choice, logprob in ((0, -2.0), (1, -0.1)):
            made = (token(f"c{choice}", logprob=logprob),)
            served.engine.push(Delta(number, choice, made, Finish.EOS, Usage(1, 1)))
        served.engine.wake()
        await sink.ended.wait()
    assert json.loads(sink.data) == [1, True, {"0": ["c0"], "1": ["c1"]}]


@pytest.mark.parametrize("per_delta", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_output_formatter_that_raises_fails_its_own_request(
    tmp_path: Path, stream: bool, per_delta: int, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
        from djl_python.output_formatter import RequestOutput, output_formatter
        @output_formatter
        def write(output: RequestOutput) -> str:
            token, *_ = output.sequences[0].get_next_token()
            if token.text == " two":
                raise ZeroDivisionError("no two")
            return token.text
    """
    async with hooked(tmp_path, text) as served:
        sink = await served.ask({"inputs": "x", "stream": stream}, per_delta)
        if stream:
            assert sink.data == b'one{"code":424,"error":"Custom formatter failed: no two"}\n'
        else:
            assert str(sink.error) == "Custom formatter failed: no two"
        assert "ZeroDivisionError" in caplog.text
        assert served.session.held == 0
        _, other = served.accept({"inputs": "y"})
        served.generate(("fine",))
        await other.ended.wait()
        assert other.data == b"fine"


async def test_an_engines_error_passes_a_formatter_by(tmp_path: Path) -> None:
    async with hooked(tmp_path, FOR_OUTPUT) as served:
        _, sink = served.accept({"inputs": "x"})
        number = served.engine.submitted[-1].id
        error = EngineError("broken")
        served.engine.push(Delta(number, 0, (), Finish.ERROR, Usage(1, 0), error))
        served.engine.wake()
        await sink.ended.wait()
        assert sink.error is error


FOR_RESPONSE = """
    from djl_python.output_formatter import output_formatter
    @output_formatter
    def write(response):
        if isinstance(response, str):
            return response.removeprefix("data: ").strip()[:6]
        return {"mine": response.choices[0].text, "tokens": response["usage"]["completion_tokens"]}
"""


@pytest.mark.parametrize("body", [{"inputs": "x"}, {"prompt": "x"}])
async def test_a_formatter_of_the_asynchronous_handler_gets_openais_object(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    async with hooked(tmp_path, FOR_RESPONSE, form="async") as served:
        sink = await served.ask(body)
        assert sink.data == b'{"mine":"one two three","tokens":3}\n'
        assert dict(sink.head.headers)["content-type"] == "application/json"


async def test_a_formatter_may_change_the_response_that_it_returns(tmp_path: Path) -> None:
    text = """
        from djl_python.output_formatter import output_formatter
        @output_formatter
        def write(response):
            response.choices[0].text = "changed"
            return response
    """
    async with hooked(tmp_path, text, form="async") as served:
        answer = json.loads((await served.ask({"inputs": "x"})).data)
    assert answer["choices"][0]["text"] == "changed"
    assert answer["usage"]["completion_tokens"] == 3


async def test_chunks_of_a_stream_are_events_or_objects_as_the_annotation_says(
    tmp_path: Path,
) -> None:
    async with hooked(tmp_path, FOR_RESPONSE, form="async") as served:
        sink = await served.ask({"inputs": "x", "stream": True})
        assert sink.data.startswith(b'{"id":\n')
        assert dict(sink.head.headers)["content-type"] == "application/jsonlines"
    text = FOR_RESPONSE.replace("(response)", "(response: dict)").replace(
        '"tokens": response["usage"]["completion_tokens"]', '"id": response.id[:4]'
    )
    folder = tmp_path / "other"
    async with hooked(folder, text, form="async") as served:
        sink = await served.ask({"inputs": "x", "stream": True})
        said = [json.loads(line) for line in sink.data.splitlines()]
        assert "".join(each["mine"] for each in said) == "one two three"


@pytest.mark.parametrize("broken", ["one", " two"])
async def test_a_response_formatter_that_raises_fails_its_own_request(
    tmp_path: Path, broken: str
) -> None:
    text = f"""
        from djl_python.output_formatter import output_formatter
        @output_formatter
        def write(response: dict):
            if response.choices[0].text == {broken!r}:
                raise ValueError("no")
            return response.choices[0].text
    """
    async with hooked(tmp_path, text, form="async") as served:
        sink = await served.ask({"inputs": "x", "stream": True})
        if broken == "one":
            assert str(sink.error) == "Custom formatter failed: no"
        else:
            assert sink.data == b'one\n{"code":424,"error":"Custom formatter failed: no"}\n'
        assert served.session.held == 0


async def test_lmis_parameters_reach_the_engine_through_a_response_formatter(
    tmp_path: Path,
) -> None:
    parameters = {"max_new_tokens": 9, "stop_sequences": ["end"], "do_sample": False}
    async with hooked(tmp_path, FOR_RESPONSE, form="async") as served:
        await served.ask({"inputs": "x", "parameters": parameters})
        sampling = served.engine.submitted[-1].sampling
        assert (sampling.max_new_tokens, sampling.stop, sampling.temperature) == (9, ("end",), 0)
        await served.ask({"inputs": "x"})
        assert served.engine.submitted[-1].sampling.max_new_tokens == 30


# A `handle` that is asked first

HANDLE = """
    from djl_python import Input
    from djl_python.async_utils import create_non_stream_output
    started = []
    {kind} handle(inputs: Input):
        if inputs.is_empty():
            started.append(inputs.get_property("task"))
            return None
        fields = inputs.get_as_json()
        if "mine" in fields:
            return create_non_stream_output({{"started": started}})
        if "stream_mine" in fields:
            return items()
        if "fail" in fields:
            raise RuntimeError("on purpose")
        return None
    {kind} items():
        yield "a"
        yield {{"b": 1}}
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_handle_answers_or_leaves_it_to_the_engine(tmp_path: Path, kind: str) -> None:
    text = textwrap.dedent(HANDLE).format(kind=kind)
    async with hooked(tmp_path, text, properties={"task": "x"}) as served:
        mine = await served.ask({"mine": 1})
        assert mine.data == b'{"started":["x"]}\n'
        assert dict(mine.head.headers)["content-type"] == "application/json"
        items = await served.ask({"stream_mine": 1})
        assert items.data == b'a{"b":1}\n'
        failed = await served.ask({"fail": 1})
        assert str(failed.error) == "Custom handler failed: on purpose"
        assert len(served.engine.submitted) == 1  # the warm-up
        other = await served.ask({"inputs": "x"})
        assert json.loads(other.data) == {"generated_text": "one two three"}
        assert served.session.measures.outcomes == {"ok": 3, "error": 1}
        assert served.session.measures.accepted == 4
        assert served.session.held == 0


async def test_what_the_engine_refuses_after_a_handle_is_the_answer(tmp_path: Path) -> None:
    async with hooked(tmp_path, textwrap.dedent(HANDLE).format(kind="def")) as served:
        sink = await served.ask({"wrong": 1})
        assert "inputs" in str(sink.error)


async def test_a_client_that_leaves_cancels_a_handle_and_then_the_generation(
    tmp_path: Path,
) -> None:
    text = """
        import asyncio
        ended = []
        async def handle(inputs):
            if not inputs.is_empty() and "slow" in inputs.get_as_json():
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append("slow")
    """
    async with hooked(tmp_path, text) as served:
        slow, sink = served.accept({"slow": 1})
        passed, _ = served.accept({"inputs": "x"})
        await until(lambda: len(served.engine.submitted) == 2)
        assert slow.open
        slow.cancel()
        passed.cancel()
        assert not slow.open
        assert not passed.open
        ended = load_module(tmp_path, "model.py").ended
        await until(lambda: ended == ["slow"])
        assert served.engine.cancelled == [served.engine.submitted[-1].id]
        await until(lambda: served.session.held == 0)
        assert not sink.ends
        assert served.session.measures.outcomes == {"cancelled": 2}


async def test_calls_that_a_handle_keeps_waiting_count_as_held(tmp_path: Path) -> None:
    text = """
        import asyncio
        async def handle(inputs):
            if not inputs.is_empty():
                await asyncio.Event().wait()
    """
    async with hooked(tmp_path, text, max_queue=2) as served:
        for _ in range(4 + 2):  # the scripted engine runs four at once
            served.accept({"inputs": "x"})
        with pytest.raises(Overloaded):
            served.accept({"inputs": "x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def handle(inputs):\n    raise OSError('no file')", "initialise call: OSError: no file"),
        (
            "from djl_python import Output\ndef handle(inputs):\n    return Output(500, 'bad')",
            "it answered 500 bad",
        ),
    ],
)
async def test_a_handle_that_cannot_start_fails_the_load(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        async with hooked(tmp_path, text):
            pass


async def test_a_slow_hook_is_complained_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
        import time
        from djl_python.input_parser import input_formatter
        @input_formatter
        def read(payload: dict) -> dict:
            time.sleep(0.06)
            return payload
    """
    async with hooked(tmp_path, text) as served:
        for _ in range(2):
            await served.ask({"inputs": "x"})
    said = [record.getMessage() for record in caplog.records if "hook" in record.getMessage()]
    assert len(said) == 1
    assert "a hook of model.py took" in said[0]


# Loading

WRONG = {
    "two parameters": (
        "@output_formatter\ndef write(a, b): pass",
        "request_output: RequestOutput",
    ),
    "async": ("@output_formatter\nasync def write(a): pass", "expected def, not async def"),
    "no parameter": ("@input_formatter\ndef read(): pass", "decoded_payload: dict"),
    "handle": ("def handle(): pass", r"handle\(inputs: Input\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_hook_with_a_wrong_signature_is_named_with_the_right_one(
    tmp_path: Path, name: str
) -> None:
    text, said = WRONG[name]
    head = (
        "from djl_python.output_formatter import output_formatter\n"
        "from djl_python.input_parser import input_formatter\n"
    )
    with pytest.raises(ConfigError, match=said):
        load_hooks(HooksSpec(write_model(tmp_path, head + text)))


def test_a_folder_without_hooks_has_none(tmp_path: Path) -> None:
    assert load_hooks(HooksSpec(tmp_path)) is None
    assert load_hooks(HooksSpec(write_model(tmp_path, "x = 1"))) is None
    with pytest.raises(ConfigError, match="there is no function of this name"):
        load_hooks(HooksSpec(tmp_path, output_formatter="absent"))
