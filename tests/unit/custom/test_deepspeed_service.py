"""DeepSpeed's handler answers as transformers does: each task, alone, in a batch, on two ranks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers as tf

from lmi.core import ConfigError, ModelError
from lmi.custom import FunctionSpec, load_function
from lmi.custom.api import Input, Output
from lmi.custom.stock import deepspeed_model
from lmi.custom.stock.deepspeed import DeepSpeedService
from lmi.custom.stock.deepspeed_options import DeepSpeedOptions
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.huggingface import HuggingFaceService
from lmi.engines.deepspeed import call as deepspeed_call
from lmi.engines.deepspeed.injection import Injection
from tests.support.functions import Calls, pool_of
from tests.support.models import save_random
from tests.unit.handlers.models import SPECIAL, WORDS, make, write_tokenizer

Serve = Callable[..., DeepSpeedService]

TEXTS = ["this film was very good .", "the dog sleeps", "not a good book , this was very bad ."]
QUESTION = {"question": "what is the capital of France ?", "context": "Paris is the capital ."}
DIALOGUE = {"text": "who runs ?", "past_user_inputs": ["a dog"], "generated_responses": ["good"]}
LABELS = {"candidate_labels": ["good", "bad"]}
SHORT = {"max_new_tokens": 5}


def bart(folder: Path) -> Path:
    """A random BART, which has no kind among the handlers' models."""
    config = tf.BartConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        forced_eos_token_id=3,
    )
    save_random(folder, config, tf.AutoModelForSeq2SeqLM)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of a kind, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind[:8])
            made[kind] = bart(path) if kind == "bart" else make(path, kind)
        return made[kind]

    return get


@pytest.fixture(scope="module")
def serve(folder: Callable[[str], Path]) -> Serve:
    """Loads a model of a kind once for the module."""
    loaded: dict[Any, Any] = {}

    def get(kind: str, service: type = DeepSpeedService, **options: str) -> Any:
        key = (kind, service, tuple(sorted(options.items())))
        if key not in loaded:
            loaded[key] = service()
            loaded[key].initialize({"model_dir": str(folder(kind)), "device_id": "-1", **options})
        return loaded[key]

    return get


def request(body: Any) -> Input:
    inputs = Input()
    inputs.properties = {"Content-Type": "application/json"}
    inputs.content.add("data", bytearray(json.dumps(body).encode()))
    return inputs


def batch(*bodies: Any) -> list[Input]:
    return [request(each) for each in bodies]


def body(output: Output) -> Any:
    assert output.code == 200, output.content.value_at(0)
    return json.loads(output.content.value_at(0))


TASKS = [
    ("text-classification", None, TEXTS[0], {}),
    ("token-classification", None, TEXTS[0], {}),
    ("question-answering", None, QUESTION, {}),
    ("fill-mask", None, "the [MASK] sleeps", {}),
    ("zero-shot-classification", "zero-shot-classification", TEXTS[0], LABELS),
    ("feature-extraction", "feature-extraction", TEXTS[0], {}),
    ("feature-extraction", "text-embedding", TEXTS[0], {}),
    ("text-generation", None, TEXTS[0], SHORT),
    ("text-generation", "conversational", DIALOGUE, SHORT),
    ("text2text-generation", None, TEXTS[0], SHORT),
    ("text2text-generation", "summarization", TEXTS[0], SHORT),
    ("text2text-generation", "translation_en_to_fr", TEXTS[0], SHORT),
    ("bart", "summarization", TEXTS[0], SHORT),
]


@pytest.mark.parametrize(("kind", "task", "inputs", "parameters"), TASKS)
def test_each_task_answers_as_transformers_does_alone_and_in_a_batch(
    serve: Serve, kind: str, task: str | None, inputs: Any, parameters: Any
) -> None:
    options = {} if task is None else {"task": task}
    asked = {"inputs": inputs, "parameters": parameters}
    plain = body(serve(kind, HuggingFaceService, **options).inference(request(asked)))
    service = serve(kind, **options)
    answer = body(service.inference(request(asked)))
    alone = service.task in ("conversational", "question-answering")
    assert answer == (plain[0] if alone else plain)
    together = service.answers(batch(asked, {"inputs": 3}, asked))
    assert [body(together[0]), body(together[2])] == [answer, answer]


def test_lists_of_inputs_are_answered_with_lists(serve: Serve) -> None:
    asked = {"inputs": [QUESTION, QUESTION]}
    answer = body(serve("question-answering").inference(request(asked)))
    assert [set(each) for each in answer] == [{"answer", "score", "start", "end"}] * 2
    masks = serve("fill-mask")
    one, listed = ({"inputs": each} for each in ("the [MASK]", ["the [MASK]"]))
    assert body(masks.inference(request(one))) == body(masks.inference(request(listed)))


def test_logits_in_float32_are_those_of_transformers(serve: Serve, folder: Any) -> None:
    service = serve("text-classification")
    plain = tf.AutoModelForSequenceClassification.from_pretrained(folder("text-classification"))
    ids = torch.arange(5, 20)[None]
    with torch.inference_mode():
        assert torch.equal(service.model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_a_bad_request_of_a_batch_harms_no_other(serve: Serve) -> None:
    service = serve("text-classification")
    good, bad = {"inputs": TEXTS[0]}, {"inputs": 3}
    codes = [each.code for each in service.answers(batch(good, bad, good))]
    assert codes == [200, 424, 200]


def test_the_dtype_is_the_options(serve: Serve) -> None:
    assert serve("fill-mask").model.dtype == torch.float32
    half = serve("fill-mask", dtype="bf16")
    assert half.model.dtype == torch.bfloat16
    assert len(body(half.inference(request({"inputs": "the [MASK]"})))) == 5


def load(path: Path, **options: Any) -> Any:
    """A classifier as DeepSpeed leaves it."""
    settings = HuggingFaceOptions(str(path), dtype="float32")
    told = DeepSpeedOptions.read(options)
    return deepspeed_model.load("text-classification", settings, "float32", told, 1).model


def test_kernels_that_are_not_for_this_device_are_left_out_and_the_model_is_read_again(
    folder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deepspeed_model, "decide", lambda *_, **__: Injection(True, "asked"))
    path = folder("text-classification")
    with caplog.at_level("INFO"):
        model = load(path)
    assert "DeepSpeed's kernels are not used: DeepSpeed" in caplog.text
    assert "not been implemented on CPU" in caplog.text or "can't rebuild" in caplog.text
    plain = tf.AutoModelForSequenceClassification.from_pretrained(path)
    for name, parameter in plain.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name


def test_deepspeed_is_told_what_the_options_say(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def init_inference(model: Any, **arguments: Any) -> Any:
        told.update(arguments)
        return model

    monkeypatch.setattr(deepspeed_call, "init_inference", init_inference)
    load(
        folder("text-classification"),
        max_tokens="99",
        return_tuple="false",
        triangular_masking="false",
    )
    assert told == {
        "dtype": torch.float32,
        "device": "cpu",
        "degree": 1,
        "inject": False,
        "further": {"max_out_tokens": 99, "return_tuple": False, "triangular_masking": False},
    }


def test_a_model_that_deepspeed_gets_wrong_is_refused(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init_inference(model: Any, **_: Any) -> Any:
        with torch.no_grad():
            model.classifier.weight.mul_(1.1)
        return model

    monkeypatch.setattr(deepspeed_call, "init_inference", init_inference)
    with pytest.raises(ModelError, match=r"changes the output of BertForSequenceClassification"):
        load(folder("text-classification"))


def test_an_option_that_cannot_be_honoured_ends_the_load(folder: Any) -> None:
    with pytest.raises(ConfigError, match=r"option\.training_mp_size='2'"):
        DeepSpeedService().initialize(
            {"model_dir": str(folder("fill-mask")), "training_mp_size": 2}
        )


def test_a_users_model_py_wraps_the_service(folder: Any, tmp_path: Path) -> None:
    text = """
        from djl_python.deepspeed import DeepSpeedService

        service = DeepSpeedService()

        def handle(inputs):
            if not service.initialized:
                service.initialize(inputs.get_properties())
            if inputs.is_empty():
                return None
            return service.inference(inputs).add_property("X-Task", service.task)
    """
    (tmp_path / "model.py").write_text("import textwrap\nexec(textwrap.dedent('''" + text + "'''))")
    spec = FunctionSpec("m", tmp_path, properties={"model_id": str(folder("text-classification"))})
    with function(spec) as calls:
        answer = calls.ask(json.dumps({"inputs": TEXTS[0]}).encode(), properties=JSON)
    assert answer.status == 200
    assert set(json.loads(answer.body)[0]) == {"label", "score"}


JSON = {"content-type": "application/json"}


@contextmanager
def function(spec: FunctionSpec) -> Iterator[Calls]:
    found = load_function(spec)
    try:
        yield Calls(found)
    finally:
        found.close()


def two_ranks(path: Path, **properties: str) -> FunctionSpec:
    return FunctionSpec(
        "m",
        path,
        entry_point="lmi.custom.stock.deepspeed",
        properties={"model_dir": str(path), "tensor_parallel_degree": 2, **properties},
        environ={"OMP_NUM_THREADS": "1"},
        restart_limit=0,
    )


@pytest.mark.parametrize(
    ("kind", "task", "inputs", "parameters"),
    [
        ("text-classification", "text-classification", TEXTS, {}),
        ("text2text-generation", "translation", TEXTS[0], {**SHORT, "do_sample": True, "seed": 7}),
    ],
)
def test_two_ranks_answer_as_one_and_survive_a_bad_request(
    serve: Serve, folder: Any, kind: str, task: str, inputs: Any, parameters: Any
) -> None:
    asked = {"inputs": inputs, "parameters": parameters}
    alone = body(serve(kind, task=task).inference(request(asked)))
    bad = {"inputs": 3}
    with function(two_ranks(folder(kind), task=task)) as calls:
        (worker,) = map(psutil.Process, pool_of(calls).pids)
        (rank,) = worker.children()
        answers = [calls.ask(json.dumps(each).encode(), properties=JSON) for each in (asked, bad)]
        again = calls.ask(json.dumps(asked).encode(), properties=JSON)
    assert [each.status for each in (*answers, again)] == [200, 424, 200]
    assert answers[0].body == again.body
    for one, two in zip(alone, json.loads(again.body), strict=True):
        assert {
            key: pytest.approx(each, rel=1e-4) if key == "score" else each
            for key, each in one.items()
        } == two
    psutil.wait_procs([worker, rank], timeout=10)
    assert not rank.is_running()


def test_a_rank_that_is_killed_takes_the_worker_with_it(folder: Any) -> None:
    with function(two_ranks(folder("text-classification"))) as calls:
        (worker,) = map(psutil.Process, pool_of(calls).pids)
        (rank,) = worker.children()
        rank.kill()
        _, alive = psutil.wait_procs([worker, rank], timeout=10)
        assert not alive
