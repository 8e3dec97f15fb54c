"""The fallback gives the tokens of transformers' generate, one request's settings being its own."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from lmi.core import BadPayload, ConfigError, Finish, ModelError
from lmi.dist.any_core import make_core
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.messages import CoreDetail, CoreEvent, CoreRequest
from lmi.dist.padded.core import PaddedCore
from lmi.dist.padded.forming import Together
from tests.support.fallback_models import DECODERS, ENCODERS, make_fallback_model
from tests.support.models import VOCAB, make_model

pytestmark = pytest.mark.slow

FAMILIES = [*ENCODERS, *DECODERS]
NEW_TOKENS = 14


def _prompts(count: int, longest: int = 30) -> list[tuple[int, ...]]:
    """Of many lengths, some of them equal; no special token."""
    generator = random.Random(0)
    return [
        tuple(generator.randrange(3, VOCAB) for _ in range(generator.choice((1, 4, 7, 7, longest))))
        for _ in range(count)
    ]


PROMPTS = _prompts(10)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = make_fallback_model(tmp_path_factory.mktemp(family) / family, family)
        return made[family]

    return get


def load(folder: Path, **options: Any) -> PaddedCore:
    core = make_core(DistConfig(folder, **{"dtype": "float32", "max_batch": 4, **options}))
    assert isinstance(core, PaddedCore)
    return core


@cache
def transformers_model(folder: Path) -> Any:
    auto = tf.AutoModelForCausalLM
    if tf.AutoConfig.from_pretrained(folder).is_encoder_decoder:
        auto = tf.AutoModelForSeq2SeqLM
    return auto.from_pretrained(folder, dtype=torch.float32)


def reference(folder: Path, prompt: tuple[int, ...], **options: Any) -> list[int]:
    """What `generate` answers to one prompt alone."""
    model = transformers_model(folder)
    options = {"max_new_tokens": NEW_TOKENS, **options}
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1, **options
    )
    answer: list[int] = out[0, 1 if model.config.is_encoder_decoder else len(prompt) :].tolist()
    return answer


@dataclass
class Answer:
    tokens: list[int] = field(default_factory=list)
    events: list[CoreEvent] = field(default_factory=list)

    @property
    def finish(self) -> Finish | None:
        return self.events[-1].finish

    @property
    def detail(self) -> CoreDetail | None:
        return self.events[0].detail


def take(answers: dict[Any, Answer], events: Iterable[CoreEvent]) -> None:
    for event in events:
        answer = answers[event.request_id, event.choice]
        assert not answer.events or answer.finish is None
        answer.events.append(event)
        if event.token is not None:
            answer.tokens.append(event.token)


def run(core: PaddedCore, requests: Iterable[CoreRequest]) -> dict[Any, Answer]:
    answers: dict[Any, Answer] = defaultdict(Answer)
    for request in requests:
        core.add(request)
    while core.has_work:
        take(answers, core.step())
    assert (core.stats().running, core.stats().waiting) == (0, 0)
    return answers


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_generate_whatever_runs_beside(folder: Any, family: str) -> None:
    core = load(folder(family))
    answers: dict[Any, Answer] = defaultdict(Answer)
    for index, prompt in enumerate(PROMPTS[:6]):
        core.add(CoreRequest(index, prompt, max_new_tokens=NEW_TOKENS - index))
    core.add(CoreRequest(99, PROMPTS[0], max_new_tokens=1000))
    later = list(enumerate(PROMPTS))[6:]
    while core.has_work:
        take(answers, core.step())
        if answers[99, 0].tokens:
            core.cancel(99)
        if later:
            index, prompt = later.pop()
            core.add(CoreRequest(index, prompt, max_new_tokens=NEW_TOKENS - index))
    assert answers[99, 0].finish is Finish.CANCELLED
    for index, prompt in enumerate(PROMPTS):
        want = reference(folder(family), prompt, max_new_tokens=NEW_TOKENS - index)
        assert answers[index, 0].tokens == want, index


@pytest.mark.parametrize(
    ("family", "together", "drops"),
    [
        ("t5", Together.PADDED, True),
        ("bart", Together.PADDED, True),
        ("mamba", Together.PADDED, True),
        ("lfm2", Together.PADDED, True),
        # Its state ignores the padding mask, and lives where we can't drop rows of it.
        ("recurrent_gemma", Together.EQUAL, False),
        # transformers' RWKV mixes up the rows of a batch when it decodes.
        ("rwkv", Together.ALONE, False),
    ],
)
def test_a_model_is_batched_as_its_answers_allow(
    folder: Any, family: str, together: Together, drops: bool
) -> None:
    core = load(folder(family))
    details = dict(core.info.details)
    assert details["batches"].endswith(together.value)
    assert ("leave" in details["rows that end"]) is drops
    assert details["runtime"].startswith("generate, the fallback (")
    answers = run(core, [CoreRequest(i, (5, 6, 7, 8 + i), max_new_tokens=5) for i in range(4)])
    assert len(answers) == 4
    assert core.stats().steps == (20 if together is Together.ALONE else 5)


def test_rows_that_end_leave_the_batch_and_change_no_other(folder: Any) -> None:
    core = load(folder("t5"), max_batch=3)
    answers = run(
        core, [CoreRequest(i, PROMPTS[i], max_new_tokens=n) for i, n in enumerate((2, 9, 5))]
    )
    assert core.stats().steps == 9
    for index, new_tokens in enumerate((2, 9, 5)):
        want = reference(folder("t5"), PROMPTS[index], max_new_tokens=new_tokens)
        assert answers[index, 0].tokens == want


def test_one_choice_is_cancelled_without_the_other(folder: Any) -> None:
    core = load(folder("t5"))
    core.add(CoreRequest(0, PROMPTS[1], max_new_tokens=6, choices=2))
    answers: dict[Any, Answer] = defaultdict(Answer)
    take(answers, core.step())
    core.cancel(0, 1)
    while core.has_work:
        take(answers, core.step())
    assert answers[0, 1].finish is Finish.CANCELLED
    assert len(answers[0, 1].tokens) == 1
    assert answers[0, 0].tokens == reference(folder("t5"), PROMPTS[1], max_new_tokens=6)
    assert core.stats().cancelled == 1


def test_a_small_budget_makes_small_batches(folder: Any) -> None:
    requests = [CoreRequest(i, (5 + i,) * 20, max_new_tokens=5) for i in range(4)]
    core = load(folder("t5"))
    run(core, requests)
    assert core.stats().steps == 5
    cost = core._model.trial.cost.of(2, 20, 5)
    core = load(folder("t5"), kv_cache_bytes=cost)
    run(core, requests)
    assert core.stats().steps == 10
    assert core.stats().prompt_tokens == 80
    assert core.stats().generated_tokens == 20


def test_a_batch_takes_no_more_than_it_was_planned_to(folder: Any) -> None:
    for family in ("t5", "bart", "mamba", "lfm2"):
        core = load(folder(family))
        passes = core._model.begin([PROMPTS[0], PROMPTS[1]])
        for step in range(7):
            passes.forward()
            passes.push([step, step])
        read = max(len(PROMPTS[0]), len(PROMPTS[1]))
        assert 0 < passes.state_bytes <= 1.1 * core._model.trial.cost.of(2, read, 7)


def test_an_answer_ends_with_the_positions_of_its_decoder(folder: Any) -> None:
    core = load(folder("bart"))
    answers = run(core, [CoreRequest(0, PROMPTS[0], max_new_tokens=500, ignore_eos=True)])
    assert answers[0, 0].finish is Finish.LENGTH
    assert len(answers[0, 0].tokens) == 127  # and the start token


@pytest.mark.parametrize("family", ["t5", "mamba"])
def test_a_seeded_request_gives_the_same_alone_and_in_a_crowd(folder: Any, family: str) -> None:
    def request(index: int, **changes: Any) -> CoreRequest:
        options = {"temperature": 3.0, "top_p": 0.95, "top_k": 50, "seed": index, **changes}
        return CoreRequest(index, PROMPTS[index], max_new_tokens=9, **options)

    core = load(folder(family))
    crowd = run(core, [request(i, choices=2) if i == 3 else request(i) for i in range(8)])
    for index in (0, 3, 7):
        alone = run(core, [request(index)])
        assert alone[index, 0].tokens == crowd[index, 0].tokens
    assert crowd[3, 0].tokens != crowd[3, 1].tokens


@pytest.mark.parametrize("family", ["bart", "mamba"])
def test_the_repetition_penalty_is_that_of_generate(folder: Any, family: str) -> None:
    prompts = PROMPTS[:4]
    answers = run(
        load(folder(family)),
        [
            CoreRequest(i, p, max_new_tokens=NEW_TOKENS, repetition_penalty=1.8)
            for i, p in enumerate(prompts)
        ],
    )
    changed = False
    for index, prompt in enumerate(prompts):
        want = reference(folder(family), prompt, repetition_penalty=1.8)
        assert answers[index, 0].tokens == want
        changed = changed or want != reference(folder(family), prompt)
    assert changed, "a penalty without effect shows nothing"


def test_a_request_ends_by_its_own_stop_ids_length_and_minimum(folder: Any) -> None:
    plain = reference(folder("t5"), PROMPTS[2], max_new_tokens=9)
    core = load(folder("t5"))
    answers = run(
        core,
        [
            CoreRequest(0, PROMPTS[2], max_new_tokens=9, stop_token_ids=(plain[3],)),
            CoreRequest(1, PROMPTS[2], max_new_tokens=4),
            CoreRequest(
                2, PROMPTS[2], max_new_tokens=9, min_new_tokens=9, stop_token_ids=(plain[3],)
            ),
        ],
    )
    assert answers[0, 0].tokens == plain[: plain.index(plain[3]) + 1]
    assert answers[0, 0].finish is Finish.STOP
    assert (answers[1, 0].tokens, answers[1, 0].finish) == (plain[:4], Finish.LENGTH)
    assert len(answers[2, 0].tokens) == 9
    assert plain[3] not in answers[2, 0].tokens[:8]


@pytest.mark.parametrize("family", ["t5", "mamba"])
def test_logprobs_are_those_of_the_models_logits(folder: Any, family: str) -> None:
    answers = run(
        load(folder(family)),
        [CoreRequest(i, PROMPTS[i], max_new_tokens=5, logprobs=2) for i in range(3)],
    )
    model = transformers_model(folder(family))
    for index in range(3):
        out = model.generate(
            torch.tensor([PROMPTS[index]]),
            do_sample=False,
            max_new_tokens=5,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for event, logits in zip(answers[index, 0].events, out.logits, strict=True):
            want = torch.log_softmax(logits[0].float(), dim=-1).topk(2)
            assert [token for token, _ in event.top] == want.indices.tolist()
            assert event.logprob == pytest.approx(want.values[0].item(), abs=1e-4)


def test_prompt_logprobs_come_with_the_first_token_of_a_decoder(folder: Any) -> None:
    core = load(folder("mamba"))
    prompt = PROMPTS[3]
    wanted = CoreRequest(0, prompt, max_new_tokens=2, prompt_logprobs=True)
    beside = [CoreRequest(i, PROMPTS[i], max_new_tokens=2) for i in (1, 2)]
    answers = run(core, [beside[0], wanted, beside[1]])
    model = transformers_model(folder("mamba"))
    logits = torch.log_softmax(model(torch.tensor([prompt])).logits[0].float(), dim=-1)
    detail = answers[0, 0].detail
    assert detail is not None
    assert [token for token, _ in detail.prompt] == list(prompt)
    assert detail.prompt[0][1] is None
    for place, (token, logprob) in enumerate(detail.prompt[1:]):
        assert logprob == pytest.approx(logits[place, token].item(), abs=1e-4)
    assert answers[1, 0].tokens == reference(folder("mamba"), PROMPTS[1], max_new_tokens=2)


def test_prompt_logprobs_of_an_encoder_are_refused_by_name(folder: Any) -> None:
    core = load(folder("t5"))
    with pytest.raises(BadPayload, match="an encoder reads the prompt") as caught:
        core.add(CoreRequest(0, PROMPTS[0], prompt_logprobs=True))
    assert caught.value.field == "prompt_logprobs"
    assert not core.has_work


def test_what_the_checkpoint_forces_and_forbids_is_done(folder: Any, tmp_path: Path) -> None:
    model = tf.AutoModelForSeq2SeqLM.from_pretrained(folder("bart"), dtype=torch.float32)
    plain = reference(folder("bart"), PROMPTS[5])
    model.generation_config.update(
        forced_bos_token_id=77,
        forced_eos_token_id=2,
        suppress_tokens=[plain[0], plain[1]],
        no_repeat_ngram_size=2,
    )
    model.save_pretrained(tmp_path)
    want = reference(tmp_path, PROMPTS[5])
    assert (want[0], want[-1]) == (77, 2)
    assert not {plain[0], plain[1]} & set(want)
    requests = [CoreRequest(i, PROMPTS[5 - i], max_new_tokens=NEW_TOKENS) for i in range(3)]
    answers = run(load(tmp_path), requests)
    assert answers[0, 0].tokens == want


def test_what_the_checkpoint_asks_for_in_vain_is_said(folder: Any, tmp_path: Path) -> None:
    model = tf.AutoModelForSeq2SeqLM.from_pretrained(folder("bart"), dtype=torch.float32)
    model.generation_config.update(num_beams=4, min_length=7)
    model.save_pretrained(tmp_path)
    details = dict(load(tmp_path).info.details)
    assert details["not used of generation_config.json"] == "num_beams=4, min_length=7"
    assert "not used of generation_config.json" not in dict(load(folder("t5")).info.details)


def test_logits_that_are_not_finite_harm_their_own_row_only(tmp_path: Path) -> None:
    # A Llama, whose embedding is not its head too.
    weights = make_model(tmp_path, "llama") / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"][500] = torch.nan
    save_file(tensors, weights, {"format": "pt"})
    core = load(tmp_path, runtime="generate")
    answers = run(
        core, [CoreRequest(i, p, max_new_tokens=3) for i, p in enumerate([(5, 6), (7, 500, 8)])]
    )
    assert answers[1, 0].finish is Finish.ERROR
    assert answers[0, 0].finish is Finish.LENGTH


@pytest.mark.filterwarnings("ignore")
def test_a_pass_that_fails_ends_its_batch_and_not_the_core(folder: Any) -> None:
    core = load(folder("mamba"), max_batch=2)
    failures = [MemoryError("no room"), RuntimeError("broken")]

    def fail(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if failures:
            raise failures.pop()

    handle = core._model.model.register_forward_pre_hook(fail, with_kwargs=True)
    answers = run(core, [CoreRequest(i, PROMPTS[i], max_new_tokens=3) for i in range(6)])
    handle.remove()
    kinds = []
    for index in range(6):
        detail = answers[index, 0].detail
        kinds.append(detail.error.kind if detail is not None and detail.error is not None else None)
    assert kinds == ["EngineError"] * 2 + ["OutOfMemory"] * 2 + [None] * 2


def test_what_pages_alone_can_do_is_refused_by_name(folder: Any) -> None:
    for name, value in {"prefix_cache": True, "speculative_tokens": 3, "kernels": "cpu"}.items():
        with pytest.raises(ConfigError, match=f"{name}=.*the fallback"):
            load(folder("t5"), **{name: value})


def test_a_context_beyond_the_models_positions_is_refused(folder: Any) -> None:
    with pytest.raises(ConfigError, match=r"max_model_len='129'.*at most 128 tokens"):
        load(folder("bart"), max_model_len=129)
    assert load(folder("mamba"), max_model_len=5000).info.max_model_len == 5000


def test_a_model_that_can_be_paged_is_not_given_to_the_fallback(tmp_path: Path) -> None:
    make_model(tmp_path, "llama")
    assert isinstance(make_core(DistConfig(tmp_path, kernels="plain")), EngineCore)
    core = make_core(DistConfig(tmp_path, runtime="generate", dtype="float32"))
    assert isinstance(core, PaddedCore)
    answers = run(core, [CoreRequest(i, p, max_new_tokens=9) for i, p in enumerate(PROMPTS[:5])])
    for index in range(5):
        assert answers[index, 0].tokens == reference(tmp_path, PROMPTS[index], max_new_tokens=9)


def test_a_runtime_that_was_asked_for_is_not_replaced(folder: Any) -> None:
    with pytest.raises(ModelError, match="t5 is an encoder-decoder model; runtime=generate may"):
        make_core(DistConfig(folder("t5"), runtime="transformers"))


def test_a_class_that_generates_no_text_is_named_before_weights(tmp_path: Path) -> None:
    tf.BertConfig().save_pretrained(tmp_path)
    for runtime in ("auto", "generate"):
        with pytest.raises(ModelError, match="bert does not generate text"):
            make_core(DistConfig(tmp_path, runtime=runtime))
