"""Each task of the transformers handler answers; a batch answers as its requests do alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from lmi.core import ConfigError
from lmi.custom.api import Input, Output
from lmi.custom.stock.huggingface import HuggingFaceService
from tests.unit.handlers.models import make

pytestmark = pytest.mark.slow
Serve = Callable[..., HuggingFaceService]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Loads a model of a kind once for the module."""
    folders: dict[str, Path] = {}
    loaded: dict[Any, HuggingFaceService] = {}

    def get(kind: str, **options: str) -> HuggingFaceService:
        if kind not in folders:
            folders[kind] = make(tmp_path_factory.mktemp(kind[:8]), kind)
        key = (kind, tuple(sorted(options.items())))
        if key not in loaded:
            loaded[key] = HuggingFaceService()
            loaded[key].initialize({"model_dir": str(folders[kind]), "device_id": "-1", **options})
        return loaded[key]

    return get


def request(body: Any, **properties: str) -> Input:
    inputs = Input()
    inputs.properties = {"Content-Type": "application/json", **properties}
    inputs.content.add("data", bytearray(json.dumps(body).encode()))
    return inputs


def batch(*bodies: Any) -> Input:
    inputs = Input()
    inputs.properties["batch_size"] = str(len(bodies))
    for index, body in enumerate(bodies):
        inputs.properties[f"batch_{index:03}.Content-Type"] = "application/json"
        inputs.content.add(f"batch_{index:03}.data", bytearray(json.dumps(body).encode()))
    return inputs


def body(output: Output) -> Any:
    assert output.code == 200, output.content.value_at(0)
    return json.loads(output.content.value_at(0))


TEXTS = ["this film was very good .", "the dog sleeps", "not a good book , this was very bad ."]
QUESTION = {"question": "what is the capital of France ?", "context": "Paris is the capital ."}


@pytest.mark.parametrize(
    ("kind", "task", "inputs", "parameters", "shape"),
    [
        ("text-classification", None, TEXTS[0], {}, {"label", "score"}),
        ("token-classification", None, TEXTS[0], {}, None),
        ("question-answering", None, QUESTION, {}, {"answer", "score", "start", "end"}),
        ("fill-mask", None, "the [MASK] sleeps", {}, {"token_str", "score", "sequence", "token"}),
        (
            "zero-shot-classification",
            "zero-shot-classification",
            TEXTS[0],
            {"candidate_labels": ["good", "bad"]},
            {"labels", "scores", "sequence"},
        ),
        ("feature-extraction", "feature-extraction", TEXTS[0], {}, None),
        ("feature-extraction", "text-embedding", TEXTS[0], {}, None),
        ("text-generation", None, TEXTS[0], {"max_new_tokens": 5}, {"generated_text"}),
        ("text2text-generation", None, TEXTS[0], {"max_new_tokens": 5}, {"generated_text"}),
        ("text2text-generation", "summarization", TEXTS[0], {}, {"summary_text"}),
        ("text2text-generation", "translation_en_to_fr", TEXTS[0], {}, {"translation_text"}),
        (
            "text-generation",
            "conversational",
            {"text": "who runs ?", "past_user_inputs": [], "generated_responses": []},
            {"max_new_tokens": 4},
            {"generated_text", "conversation"},
        ),
    ],
)
def test_each_task_answers_with_a_list(
    serve: Serve, kind: str, task: str | None, inputs: Any, parameters: Any, shape: set[str] | None
) -> None:
    service = serve(kind, **({} if task is None else {"task": task}))
    asked = {"inputs": inputs, "parameters": parameters}
    answer = body(service.inference(request(asked)))
    assert isinstance(answer, list)
    assert answer
    if shape is not None:
        assert shape == set(answer[0])
    alone = json.dumps(answer)
    together = service.answers(batch(asked, asked, asked).get_batches())
    assert [json.dumps(body(each)) for each in together] == [alone] * 3


def test_a_batch_answers_as_its_requests_do_alone(serve: Serve) -> None:
    for kind in ("text-classification", "token-classification"):
        service = serve(kind)
        bodies = [{"inputs": text} for text in TEXTS] + [{"inputs": TEXTS}]
        alone = [body(service.inference(request(each))) for each in bodies]
        assert [body(each) for each in service.answers(batch(*bodies).get_batches())] == alone
        assert len(alone[3]) == 3


def test_requests_with_other_parameters_share_a_batch_and_keep_their_own(serve: Serve) -> None:
    service = serve("text-generation")
    bodies = [{"inputs": TEXTS[0], "parameters": {"max_new_tokens": n}} for n in (2, 9, 2)]
    alone = [body(service.inference(request(each))) for each in bodies]
    assert [body(each) for each in service.answers(batch(*bodies).get_batches())] == alone
    assert alone[0] != alone[1]


def test_a_bad_request_of_a_batch_harms_no_other(serve: Serve) -> None:
    service = serve("text-classification")
    good, bad = {"inputs": TEXTS[0]}, {"inputs": TEXTS[0], "parameters": {"nonsense": 1}}
    alone = body(service.inference(request(good)))
    codes = []
    for each in service.answers(batch(good, {"inputs": 3}, bad, good).get_batches()):
        codes.append(each.code)
        if each.code == 200:
            assert body(each) == alone
    assert codes[0] == codes[3] == 200
    assert codes[1] == 424


def test_a_batch_through_inference_has_an_item_for_each_request(serve: Serve) -> None:
    service = serve("text-classification")
    output = service.inference(batch(*({"inputs": text} for text in TEXTS)))
    assert output.content.get_keys() == ["batch_0.data", "batch_1.data", "batch_2.data"]


def test_generated_text_is_that_of_the_library_and_begins_with_the_prompt(serve: Serve) -> None:
    service = serve("text-generation")
    tokens = service.tokenizer([TEXTS[1]], return_tensors="pt")
    with torch.inference_mode():
        wanted = service.model.generate(
            **{k: tokens[k] for k in ("input_ids", "attention_mask")},
            max_new_tokens=7,
            do_sample=False,
        )
    text = service.tokenizer.decode(wanted[0], skip_special_tokens=True)
    asked = {"inputs": TEXTS[1], "parameters": {"max_new_tokens": 7, "do_sample": False}}
    assert body(service.inference(request(asked))) == [{"generated_text": text}]
    asked["parameters"]["return_full_text"] = False
    (without,) = body(service.inference(request(asked)))
    assert text.endswith(without["generated_text"])
    assert len(without["generated_text"]) < len(text)


def test_a_seed_repeats_a_sampled_text(serve: Serve) -> None:
    service = serve("text-generation")
    drawn = {"max_new_tokens": 12, "do_sample": True, "temperature": 2.0}
    texts = [
        body(service.inference(request({"inputs": TEXTS[0], "parameters": {**drawn, "seed": s}})))
        for s in (1, 2, 1)
    ]
    assert texts[0] == texts[2] != texts[1]


def test_a_stream_joins_to_the_whole_text(serve: Serve) -> None:
    service = serve("text-generation")
    parameters = {"max_new_tokens": 9, "do_sample": False}
    asked: dict[str, Any] = {"inputs": TEXTS[0], "parameters": parameters}
    (whole,) = body(
        service.inference(
            request({**asked, "parameters": {**parameters, "return_full_text": False}})
        )
    )
    output = service.inference(request({**asked, "stream": True}))
    assert output.get_property("content-type") == "application/jsonlines"
    lines = [json.loads(output.stream_chunk(item)) for item in output.stream_content]
    assert len(lines) > 3
    text = "".join(line["outputs"][0] for line in lines)
    assert text.split() == whole["generated_text"].split()


def test_an_error_inside_a_stream_comes_out_of_it(serve: Serve) -> None:
    service = serve("text-generation")
    asked = {"inputs": TEXTS[0], "stream": True, "parameters": {"nonsense": 1}}
    with pytest.raises(ValueError, match="nonsense"):
        list(service.inference(request(asked)).stream_content)


def test_a_reader_that_leaves_ends_its_generation(serve: Serve) -> None:
    service = serve("text-generation")
    asked = {
        "inputs": TEXTS[0],
        "stream": True,
        "parameters": {"max_new_tokens": 10_000, "eos_token_id": -1},
    }
    stream = service.inference(request(asked)).stream_content
    next(stream)
    stream.close()  # waits for the generating thread: 10,000 tokens would take minutes


def test_a_stop_string_ends_the_text(serve: Serve) -> None:
    service = serve("text-generation")
    parameters = {"max_new_tokens": 9, "do_sample": False, "return_full_text": False}
    asked: dict[str, Any] = {"inputs": TEXTS[0], "parameters": parameters}
    whole = body(service.inference(request(asked)))[0]["generated_text"].split()
    parameters["stop_sequences"] = [whole[3]]
    cut = body(service.inference(request(asked)))[0]["generated_text"].split()
    assert cut == whole[: whole.index(whole[3]) + 1]


def test_an_answer_is_found_in_a_context_of_many_windows(serve: Serve) -> None:
    service = serve("question-answering")
    context = " ".join(TEXTS * 30)
    asked = {
        "inputs": {"question": "who runs ?", "context": context},
        "parameters": {"max_seq_len": 32, "doc_stride": 8, "top_k": 3},
    }
    (spans,) = body(service.inference(request(asked)))
    assert len(spans) == 3
    scores = [span["score"] for span in spans]
    assert scores == sorted(scores, reverse=True)
    for span in spans:
        assert context[span["start"] : span["end"]] == span["answer"]
        assert 0 < len(span["answer"].split()) <= 15


def test_embeddings_have_length_one_unless_that_is_off(serve: Serve) -> None:
    vectors = body(
        serve("feature-extraction", task="text-embedding").inference(request({"inputs": TEXTS}))
    )
    assert [len(vector) for vector in vectors] == [32] * 3
    for vector in vectors:
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)
    raw = body(
        serve("feature-extraction", task="text-embedding", normalize="false").inference(
            request({"inputs": TEXTS[0]})
        )
    )
    assert sum(x * x for x in raw[0]) != pytest.approx(1, abs=1e-3)


def test_a_body_without_inputs_is_the_input(serve: Serve) -> None:
    service = serve("question-answering")
    assert body(service.inference(request(QUESTION))) == body(
        service.inference(request({"inputs": QUESTION}))
    )


def test_text_and_accept_are_honoured(serve: Serve) -> None:
    service = serve("text-classification")
    inputs = Input()
    inputs.properties = {"content-type": "text/plain", "accept": "text/csv"}
    inputs.content.add("data", bytearray(TEXTS[0].encode()))
    lines = service.inference(inputs).content.value_at(0).decode().splitlines()
    assert lines[0] == "label,score"
    assert len(lines) == 2


def test_a_task_that_nobody_knows_is_refused_with_those_that_are(tmp_path: Path) -> None:
    make(tmp_path, "text-classification")
    with pytest.raises(ConfigError, match=r"option\.task='tea-leaves'.*text-classification"):
        HuggingFaceService().initialize({"model_dir": str(tmp_path), "task": "tea-leaves"})


def test_users_formatters_stand_around_a_model(serve: Serve, tmp_path: Path) -> None:
    service = HuggingFaceService()
    make(tmp_path, "text-classification")
    service.initialize(
        {
            "model_dir": str(tmp_path),
            "input_formatter": lambda inputs, **_: {"inputs": inputs.get_as_json()["text"]},
            "output_formatter": lambda result: {"first": result[0]["label"]},
        }
    )
    assert body(service.inference(request({"text": TEXTS[0]})))["first"] in ("good", "bad")


def test_pictures_are_answered_from_base64_and_never_fetched(tmp_path: Path) -> None:
    import base64
    import io

    from PIL import Image

    from tests.support.models import save_random

    config = tf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=8,
        id2label={0: "cat", 1: "dog"},
    )
    save_random(tmp_path, config, tf.AutoModelForImageClassification)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "ViTImageProcessorPil", "size": {"height": 16, "width": 16}}
        )
    )
    service = HuggingFaceService()
    service.initialize({"model_dir": str(tmp_path)})
    assert service.task == "image-classification"
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, format="PNG")
    text = base64.b64encode(out.getvalue()).decode()
    (answer,) = body(service.inference(request({"inputs": text})))
    assert {each["label"] for each in answer} == {"cat", "dog"}
    raw = Input()
    raw.properties["Content-Type"] = "image/png"
    raw.content.add("data", bytearray(out.getvalue()))
    assert body(service.inference(raw)) == [answer]
    for wrong in ("http://127.0.0.1:1/cat.png", "/etc/passwd", str(tmp_path / "config.json")):
        with pytest.raises(ValueError, match="base64"):
            service.inference(request({"inputs": wrong}))
