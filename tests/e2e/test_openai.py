"""OpenAI's own client, with and without asyncio, against `lmi serve` with the demo model."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import anyio
import httpx
import openai
import pytest

from tests.support.serving import DEMO, Serving, serving

pytestmark = pytest.mark.slow

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
PROMPT = "Return the name of"
HELLO: list[dict[str, str]] = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    environ = {"OPTION_CHAT_TEMPLATE": TEMPLATE, "OPTION_ROLLING_BATCH": "lmi-dist"}
    log = tmp_path_factory.mktemp("openai") / "log"
    with serving(log, str(DEMO), environ=environ) as started:
        yield started


@pytest.fixture
def ask(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def model(ask: openai.OpenAI) -> str:
    (only,) = ask.models.list()
    return only.id


def ended(server: Serving, outcome: str) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf'lmi_requests_ended_total{{.*outcome="{outcome}".*}} (\S+)', page)
    assert found
    return float(found[1])


def test_a_chat_is_the_completion_of_what_its_template_makes(
    ask: openai.OpenAI, model: str, server: Serving
) -> None:
    chat = ask.chat.completions.create(model=model, messages=HELLO, max_tokens=16, temperature=0)  # type: ignore[arg-type]
    text = ask.completions.create(
        model=model,
        prompt=PROMPT,
        max_tokens=16,
        temperature=0,
        extra_body={"add_special_tokens": False},
    )
    assert chat.choices[0].message.content == text.choices[0].text
    assert chat.usage == text.usage
    assert (chat.choices[0].finish_reason, chat.usage and chat.usage.completion_tokens) == (
        "length",
        16,
    )
    own = httpx.post(
        f"{server.url}/invocations",
        json={"messages": HELLO, "max_tokens": 16, "temperature": 0},
    )
    assert (
        own.json()["choices"] == chat.model_dump(include={"choices"}, exclude_unset=True)["choices"]
    )


def test_a_stream_joined_is_the_whole_answer(ask: openai.OpenAI, model: str) -> None:
    whole = ask.chat.completions.create(  # type: ignore[call-overload]
        model=model, messages=HELLO, max_tokens=24, n=3, seed=5, logprobs=True, top_logprobs=2
    )
    texts, tokens = [""] * 3, [0] * 3
    for chunk in ask.chat.completions.create(  # type: ignore[call-overload]
        model=model, messages=HELLO, max_tokens=24, n=3, seed=5, logprobs=True, top_logprobs=2,
        stream=True, stream_options={"include_usage": True},
    ):  # fmt: skip
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += len(choice.logprobs.content) if choice.logprobs else 0
        usage = chunk.usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert len(set(texts)) > 1
    assert usage == whole.usage
    assert sum(tokens) == whole.usage.completion_tokens
    for choice in whole.choices:
        data = bytes(byte for each in choice.logprobs.content for byte in each.bytes)
        assert data.decode() == choice.message.content


def test_prompts_may_be_ids_and_lists_and_be_echoed(ask: openai.OpenAI, model: str) -> None:
    answer = ask.completions.create(
        model=model, prompt=[PROMPT, "Return a copy"], max_tokens=4, temperature=0, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.startswith(PROMPT)
    assert answer.choices[1].text.startswith("Return a copy")
    ids = ask.completions.create(model=model, prompt=[[5, 6, 7], [8]], max_tokens=2)
    assert ids.usage is not None
    assert (ids.usage.prompt_tokens, ids.usage.completion_tokens) == (4, 4)


def test_a_stop_ends_the_text_before_it(ask: openai.OpenAI, model: str) -> None:
    def complete(**more: object) -> str:
        found = ask.completions.create(
            model=model, prompt=PROMPT, max_tokens=24, temperature=0, **more
        )  # type: ignore[call-overload]
        text: str = found.choices[0].text
        return text

    word = complete().split()[2]
    assert complete(stop=word) == complete().partition(word)[0]


def test_errors_have_the_clients_types(ask: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as long:
        ask.completions.create(model=model, prompt="word " * 20_000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        ask.completions.create(model="none", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError) as lacking:
        ask.completions.create(model=model, prompt=PROMPT, logit_bias={"1": 1})
    assert lacking.value.param == "logit_bias"
    assert ask.completions.create(model="lmi", prompt=PROMPT).choices


def test_a_client_that_leaves_a_stream_stops_its_generation(
    ask: openai.OpenAI, model: str, server: Serving
) -> None:
    before = ended(server, "cancelled")
    stream = ask.completions.create(
        model=model, prompt=PROMPT, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 20
    while ended(server, "cancelled") == before:
        assert time.monotonic() < deadline, server.log


def test_many_clients_at_once_get_their_own_answers(model: str, server: Serving) -> None:
    async def main() -> list[str]:
        answers = [""] * 16
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:

            async def one(place: int) -> None:
                stream = await client.chat.completions.create(
                    model=model, messages=HELLO, max_tokens=12, temperature=0, stream=True
                )  # type: ignore[call-overload]
                async for chunk in stream:
                    answers[place] += chunk.choices[0].delta.content or ""

            async with anyio.create_task_group() as group:
                for place in range(16):
                    group.start_soon(one, place)
        return answers

    (only,) = set(anyio.run(main))
    assert only
