"""vLLM itself behind our worker: what it computes, what it is asked for, and LoRA adapters."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lmi.core import (
    OPTIONAL,
    Adapter,
    AdapterHost,
    BadPayload,
    Delta,
    Finish,
    GenerationRequest,
    Grammar,
    OutOfMemory,
    Sampling,
    Token,
    UnknownAdapter,
)
from lmi.dist.adapter_process import AdapterProcessEngine
from lmi.dist.foreign import ForeignConfig
from lmi.engines.vllm.load import CORE
from lmi.text import Tokenizer
from tests.contract.vllm_subject import ENVIRONMENT, WORDS, write_vllm_model

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

SLOTS, MAX_RANK = 2, 8
PATIENCE_SECONDS = 60.0
PROMPT = (5, 77, 140, 9, 301, 44, 210)
_ids = count(1)


def write_adapter(folder: Path, seed: int, *, rank: int = 4, hidden: int = 64) -> Path:
    """A LoRA over the queries of all layers, large enough to change what the model says."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(4):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, hidden, generator=generator)
        weights[f"{name}.lora_B.weight"] = torch.randn(128, rank, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


class Model:
    """The model's folder, its adapters, and what transformers says of them."""

    def __init__(self, root: Path) -> None:
        self.folder = write_vllm_model(root / "model")
        self.adapters = {
            name: write_adapter(root / name, seed) for seed, name in enumerate("abcd", start=1)
        }

    def greedy(self, prompt: Sequence[int], tokens: int, adapter: str | None = None) -> list[int]:
        model: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        if adapter is not None:
            weights = load_file(self.adapters[adapter] / "adapter_model.safetensors")
            state = model.state_dict()
            for key, first in weights.items():
                if ".lora_A." in key:
                    second = weights[key.replace("lora_A", "lora_B")]
                    name = key.removeprefix("base_model.model.").replace(".lora_A", "")
                    state[name] += second @ first
        with torch.no_grad():
            found = model.generate(
                torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False, eos_token_id=None
            )
        ids: list[int] = found[0, len(prompt) :].tolist()
        return ids


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[AdapterProcessEngine]:
    """One engine for all tests: loading takes seconds, and each test leaves it idle."""
    words = (f"--model={model.folder}", *WORDS, "--enable-lora", f"--max-loras={SLOTS}")
    words += (f"--max-lora-rank={MAX_RANK}", "--max-logprobs=10", "--block-size=32")
    adapters = {"base": str(model.folder), "slots": SLOTS, "max_rank": MAX_RANK}
    arguments = {"words": words, "adapters": adapters}
    config = ForeignConfig("vLLM", model.folder, arguments, ENVIRONMENT)
    engine = AdapterProcessEngine.load_foreign(config, CORE, honours=frozenset(OPTIONAL))
    yield engine
    engine.close()


class Reply:
    """What a request was told."""

    def __init__(self, deltas: Sequence[Delta]) -> None:
        self.deltas = [delta for delta in deltas if delta.choice == 0]
        self.tokens: list[Token] = [token for delta in self.deltas for token in delta.tokens]
        self.ids = [token.id for token in self.tokens]
        self.text = "".join(token.text for token in self.tokens)
        self.finish = self.deltas[-1].finish
        self.error = self.deltas[-1].error
        self.usage = self.deltas[-1].usage
        self.prompt = self.deltas[0].prompt


def ask(engine: AdapterProcessEngine, *requests: GenerationRequest) -> list[Reply]:
    """Submit all at once and wait for all."""
    for request in requests:
        engine.submit(request)
    found: dict[int, list[Delta]] = {request.id: [] for request in requests}
    open_ = sum(request.sampling.n for request in requests)
    until = time.monotonic() + PATIENCE_SECONDS
    while open_:
        assert time.monotonic() < until, "an answer is missing"
        for delta in engine.poll(1.0):
            found[delta.request_id].append(delta)
            open_ -= delta.finish is not None
    return [Reply(deltas) for deltas in found.values()]


def request(
    prompt: str | tuple[int, ...] = PROMPT, adapter: str | None = None, **sampling: Any
) -> GenerationRequest:
    chosen = Sampling(**{"max_new_tokens": 12, "ignore_eos": True, **sampling})
    return GenerationRequest(next(_ids), prompt, chosen, adapter=adapter)


def one(engine: AdapterProcessEngine, **asked: Any) -> Reply:
    return ask(engine, request(**asked))[0]


def done(engine: AdapterProcessEngine, future: Any) -> Any:
    """What a future of the engine's holds, or its error."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not future.done():
        assert time.monotonic() < until, "the worker has not answered"
        engine.poll(0.02)
    return future.result()


def register(engine: AdapterProcessEngine, model: Model, name: str, **how: bool) -> None:
    done(engine, engine.register_adapter(Adapter(name, model.adapters[name], **how)))


@pytest.fixture
def no_adapters(engine: AdapterProcessEngine) -> Iterator[None]:
    """None are registered after the test."""
    yield
    for name in engine.adapters():
        done(engine, engine.unregister_adapter(name))


def test_greedy_tokens_are_those_of_transformers(
    engine: AdapterProcessEngine, model: Model
) -> None:
    prompts = [PROMPT, PROMPT[::-1], tuple(range(20, 90, 2))]
    replies = ask(engine, *[request(prompt, max_new_tokens=24) for prompt in prompts])
    for prompt, reply in zip(prompts, replies, strict=True):
        assert reply.ids == model.greedy(prompt, 24)
        assert reply.finish is Finish.LENGTH


def test_an_engine_with_adapters_is_an_adapter_host(engine: AdapterProcessEngine) -> None:
    assert isinstance(engine, AdapterHost)
    assert engine.info.engine == "vllm"
    assert engine.info.vocab_size == 512
    assert engine.info.max_batch == 4


@pytest.mark.parametrize(
    ("grammar", "right"),
    [
        (Grammar("choice", '["yes", "no", "perhaps"]'), {"yes", "no", "perhaps"}),
        (Grammar("regex", "[ab]{3}"), {a + b + c for a in "ab" for b in "ab" for c in "ab"}),
        (Grammar("grammar", 'root ::= "one" | "two"'), {"one", "two"}),
    ],
    ids=["choice", "regex", "grammar"],
)
def test_an_answer_follows_its_grammar(
    engine: AdapterProcessEngine, grammar: Grammar, right: set[str]
) -> None:
    reply = one(engine, prompt="the", grammar=grammar, ignore_eos=False, max_new_tokens=40)
    assert (reply.text in right, reply.finish) == (True, Finish.EOS)


@pytest.mark.parametrize("kind", ["json", "json_object", "structural_tag"])
def test_an_answer_is_the_json_that_was_asked_for(engine: AdapterProcessEngine, kind: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    tag = {
        "type": "structural_tag",
        "format": {"type": "json_schema", "json_schema": schema},
    }
    text = {"json": json.dumps(schema), "json_object": "", "structural_tag": json.dumps(tag)}[kind]
    reply = one(
        engine, prompt="the", grammar=Grammar(kind, text), ignore_eos=False, max_new_tokens=100
    )
    assert reply.text.lstrip().startswith("{")
    if kind != "json_object" and reply.finish is Finish.EOS:
        assert isinstance(json.loads(reply.text)["a"], bool)


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json", '{"type": "no such type"}'),
        Grammar("json", "no JSON"),
        Grammar("regex", "(["),
        Grammar("grammar", "no ::= rule ("),
        Grammar("choice", "no list"),
        Grammar("choice", "[]"),
        Grammar("structural_tag", "{}"),
    ],
    ids=str,
)
def test_a_bad_grammar_harms_its_own_request_only(
    engine: AdapterProcessEngine, grammar: Grammar
) -> None:
    good, bad = ask(engine, request(), request(grammar=grammar))
    assert (good.finish, len(good.ids)) == (Finish.LENGTH, 12)
    assert bad.finish is Finish.ERROR
    assert isinstance(bad.error, BadPayload)
    assert bad.error.field is not None


def test_tokens_can_be_favoured_allowed_and_forbidden(
    engine: AdapterProcessEngine, model: Model
) -> None:
    assert set(one(engine, logit_bias=((7, 100.0),)).ids) == {7}
    assert set(one(engine, allowed_token_ids=(8, 9), temperature=1.0, seed=3).ids) <= {8, 9}
    word = "e"
    (token,) = Tokenizer.load(model.folder).encode(word)
    favoured = ((token, 100.0),)
    assert set(one(engine, logit_bias=favoured).ids) == {token}
    assert token not in one(engine, logit_bias=favoured, bad_words=(word,)).ids


def test_min_new_tokens_holds_stops_back(engine: AdapterProcessEngine) -> None:
    third = one(engine).ids[2]
    stopped = one(engine, stop_token_ids=(third,))
    assert stopped.finish is Finish.STOP
    late = one(engine, stop_token_ids=(third,), min_new_tokens=8)
    assert len(late.ids) >= 8


def test_logprobs_are_as_many_as_were_asked_for(engine: AdapterProcessEngine) -> None:
    five, none, zero = ask(engine, request(logprobs=5), request(), request(logprobs=0))
    for token in five.tokens:
        assert token.top[0].id == token.id  # greedy takes the likeliest
        assert len(token.top) == 5
    assert none.tokens[0].logprob is None
    assert zero.tokens[0].logprob == pytest.approx(five.tokens[0].logprob, abs=1e-4)
    assert zero.tokens[0].top == ()
    refused = one(engine, logprobs=11)
    assert isinstance(refused.error, BadPayload)


def test_prompt_logprobs_are_refused_where_vllm_would_die_of_them(
    engine: AdapterProcessEngine,
) -> None:
    good, bad = ask(engine, request(), request(prompt_logprobs=True))
    assert good.finish is Finish.LENGTH
    assert isinstance(bad.error, BadPayload)
    assert bad.error.field == "prompt_logprobs"


def test_the_best_of_several_comes_first(engine: AdapterProcessEngine) -> None:
    asked = request(n=2, best_of=4, temperature=1.5, seed=5, logprobs=0)
    engine.submit(asked)
    deltas: list[Delta] = []
    while sum(delta.finish is not None for delta in deltas) < 2:
        deltas += engine.poll(1.0)
    means = [
        sum(token.logprob or 0.0 for token in delta.tokens) / len(delta.tokens)
        for delta in sorted(deltas, key=lambda delta: delta.choice)
    ]
    assert means == sorted(means, reverse=True)


def test_choices_of_a_seeded_request_differ_and_come_again(engine: AdapterProcessEngine) -> None:
    def sampled() -> list[list[int]]:
        asked = request(n=3, best_of=3, temperature=1.5, seed=11)
        engine.submit(asked)
        found: dict[int, list[int]] = {0: [], 1: [], 2: []}
        over = 0
        while over < 3:
            for delta in engine.poll(1.0):
                found[delta.choice] += [token.id for token in delta.tokens]
                over += delta.finish is not None
        return list(found.values())

    first = sampled()
    assert first == sampled()
    assert len({tuple(ids) for ids in first}) == 3


def test_penalties_and_truncation_change_the_answer(engine: AdapterProcessEngine) -> None:
    plain = one(engine, max_new_tokens=24)
    assert one(engine, max_new_tokens=24, repetition_penalty=5.0).ids != plain.ids
    assert one(engine, temperature=1.5, seed=1, top_k=1).ids == plain.ids[:12]
    assert one(engine, temperature=1.5, seed=1, top_p=1e-6).ids == plain.ids[:12]
    assert one(engine, temperature=1.5, seed=1, min_p=1.0).ids == plain.ids[:12]


def test_a_value_that_vllm_refuses_is_the_clients_error(engine: AdapterProcessEngine) -> None:
    good, bad = ask(engine, request(), request(temperature=3.0))
    assert good.finish is Finish.LENGTH
    assert isinstance(bad.error, BadPayload)
    assert bad.error.field == "temperature"


def test_a_shared_beginning_is_not_computed_again(engine: AdapterProcessEngine) -> None:
    prompt = tuple(range(100, 180))
    first = one(engine, prompt=prompt, max_new_tokens=2)
    again = one(engine, prompt=prompt, max_new_tokens=2)
    assert first.usage is not None
    assert again.usage is not None
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens >= 32
    assert again.ids == first.ids


def test_the_load_is_told_and_ends_with_the_work(engine: AdapterProcessEngine) -> None:
    crowd = [request(max_new_tokens=60) for _ in range(6)]
    for each in crowd:
        engine.submit(each)
    most = engine.stats()
    over = 0
    while over < len(crowd):
        over += sum(delta.finish is not None for delta in engine.poll(1.0))
        now = engine.stats()
        most = replace(
            now,
            running=max(most.running, now.running),
            waiting=max(most.waiting, now.waiting),
            kv_blocks_used=max(most.kv_blocks_used, now.kv_blocks_used),
        )
    assert (most.running, most.waiting) == (4, 2)
    assert most.kv_blocks_used > 0
    assert most.kv_blocks_total > most.kv_blocks_used


@pytest.mark.usefixtures("no_adapters")
def test_each_request_is_answered_by_its_own_adapter(
    engine: AdapterProcessEngine, model: Model
) -> None:
    for name in "abc":
        register(engine, model, name, preload=name != "c")
    wanted: list[str | None] = ["a", None, "b", "c", "a", "c"]  # more adapters than slots
    replies = ask(engine, *[request(adapter=name) for name in wanted])
    expected = {name: model.greedy(PROMPT, 12, name) for name in ("a", "b", "c", None)}
    assert [reply.ids for reply in replies] == [expected[name] for name in wanted]
    assert len({tuple(ids) for ids in expected.values()}) == 4


@pytest.mark.usefixtures("no_adapters")
def test_a_name_that_is_given_again_means_the_new_weights(
    engine: AdapterProcessEngine, model: Model, tmp_path: Path
) -> None:
    prompt = tuple(range(200, 264))  # long enough that its beginning is kept
    folder = tmp_path / "changing"
    for name in "ab":
        shutil.copytree(model.adapters[name], folder, dirs_exist_ok=True)
        done(engine, engine.register_adapter(Adapter("changing", folder)))
        reply = one(engine, prompt=prompt, adapter="changing")
        assert reply.ids == model.greedy(prompt, 12, name)


@pytest.mark.usefixtures("no_adapters")
def test_an_adapter_that_is_forgotten_is_refused_and_live_requests_go_on(
    engine: AdapterProcessEngine, model: Model
) -> None:
    with pytest.raises(UnknownAdapter, match="registered: none"):
        engine.submit(request(adapter="a"))
    register(engine, model, "a")
    asked = request(adapter="a", max_new_tokens=60)
    engine.submit(asked)
    answer = engine.unregister_adapter("a")
    with pytest.raises(UnknownAdapter):
        engine.submit(request(adapter="a"))
    deltas: list[Delta] = []
    while not deltas or deltas[-1].finish is None:
        deltas += engine.poll(1.0)
    done(engine, answer)
    assert deltas[-1].finish is Finish.LENGTH
    with pytest.raises(UnknownAdapter):
        done(engine, engine.unregister_adapter("a"))


@pytest.mark.usefixtures("no_adapters")
def test_pinned_adapters_keep_their_slots(engine: AdapterProcessEngine, model: Model) -> None:
    register(engine, model, "a", pin=True)
    register(engine, model, "b")
    with pytest.raises(OutOfMemory, match="max_loras=2"):
        register(engine, model, "c", pin=True)  # b would never have a slot
    register(engine, model, "c")
    wanted: list[str | None] = ["b", "c", "a", "c", "b", "a"]
    replies = ask(engine, *[request(adapter=name) for name in wanted])
    expected = {name: model.greedy(PROMPT, 12, name) for name in "abc"}
    assert [reply.ids for reply in replies] == [expected[name or ""] for name in wanted]


@pytest.mark.usefixtures("no_adapters")
def test_a_request_that_waits_for_a_slot_can_be_cancelled(
    engine: AdapterProcessEngine, model: Model
) -> None:
    for name in "abc":
        register(engine, model, name)
    crowd = [request(adapter=name, max_new_tokens=100) for name in "abc"]
    for each in crowd:
        engine.submit(each)
    engine.cancel(crowd[2].id)
    finishes: dict[int, Finish] = {}
    while len(finishes) < 3:
        for delta in engine.poll(1.0):
            if delta.finish is not None:
                finishes[delta.request_id] = delta.finish
    assert finishes[crowd[2].id] is Finish.CANCELLED
    assert finishes[crowd[0].id] is finishes[crowd[1].id] is Finish.LENGTH


def test_an_adapter_that_does_not_fit_is_refused_and_nothing_is_harmed(
    engine: AdapterProcessEngine, tmp_path: Path
) -> None:
    wide = write_adapter(tmp_path / "wide", 1, hidden=96)
    with pytest.raises(UnknownAdapter, match=r"4x96, but the model's .*q_proj takes rank x 64"):
        done(engine, engine.register_adapter(Adapter("wide", wide)))
    high = write_adapter(tmp_path / "high", 1, rank=16)
    with pytest.raises(UnknownAdapter, match=r"its rank is 16: option\.max_lora_rank allows 8"):
        done(engine, engine.register_adapter(Adapter("high", high)))
    adapter = Adapter("high", high, preload=False, pin=True)
    with pytest.raises(BadPayload, match="needs preload"):
        done(engine, engine.register_adapter(adapter))
    assert engine.adapters() == {}
    assert one(engine).finish is Finish.LENGTH
