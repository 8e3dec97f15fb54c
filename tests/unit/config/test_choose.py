"""Which engine runs a model, for what reason, and when none can."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.config.choose import NoEngine, Question, choose
from lmi.config.options import FOREIGN_ENGINES
from tests.unit.config.harness import ALL, HERE

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
T5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
CUSTOM = {"auto_map": {"AutoModelForCausalLM": "modeling.MyModel"}}


@pytest.mark.parametrize(
    ("engine", "rolling_batch", "chosen"),
    [
        ("Python", "vllm", "vllm"),
        ("MPI", "vllm", "vllm"),
        ("Python", "lmi-dist", "lmi-dist"),
        ("MPI", "lmi-dist", "lmi-dist"),
        ("MPI", "trtllm", "trtllm"),
        ("Python", "scheduler", "lmi-dist"),
        ("DeepSpeed", "deepspeed", "deepspeed"),
        ("MPI", "deepspeed", "deepspeed"),
        ("DeepSpeed", "auto", "deepspeed"),
        ("DeepSpeed", "disable", "python"),
        ("DeepSpeed", None, "deepspeed"),
        ("MPI", "auto", "trtllm"),
        ("MPI", None, "trtllm"),
        ("MPI", "disable", "python"),
        ("Python", "auto", "vllm"),
        ("Python", None, "vllm"),
        ("Python", "disable", "python"),
        (None, "auto", "vllm"),
        (None, None, "vllm"),
        ("vLLM", None, "vllm"),
        ("vLLM", "auto", "vllm"),
        ("vLLM", "disable", "vllm"),
        ("lmi-dist", "scheduler", "lmi-dist"),
        ("TensorRT-LLM", None, "trtllm"),
        ("echo", None, "echo"),
    ],
)
def test_engine_and_rolling_batch_mean_what_they_mean_in_lmi(
    engine: str | None, rolling_batch: str | None, chosen: str
) -> None:
    question = Question(engine=engine, rolling_batch=rolling_batch, model=LLAMA)
    choice = choose(question, ALL)
    assert choice.engine == chosen
    assert choice.reason


def test_mpi_means_lmi_dist_where_tensorrt_llm_is_missing() -> None:
    for rolling_batch in ("auto", None):
        question = Question(engine="MPI", rolling_batch=rolling_batch, model=LLAMA)
        assert choose(question, HERE).engine == "lmi-dist"


@pytest.mark.parametrize("model", [LLAMA, CUSTOM, None])
def test_with_nothing_said_the_model_runs_on_what_is_installed(model: object) -> None:
    question = Question(model=model)  # type: ignore[arg-type]
    assert choose(question, HERE).engine == "lmi-dist"
    assert choose(question, {"lmi-dist", "trtllm"}).engine == "lmi-dist"
    assert choose(question, {"vllm", "lmi-dist"}).engine == "vllm"


def test_a_model_that_generates_no_text_is_a_task() -> None:
    assert choose(Question(model=BERT), ALL).engine == "python"
    with pytest.raises(NoEngine, match="python is not installed; installed: echo, lmi-dist"):
        choose(Question(model=BERT), HERE)


@pytest.mark.parametrize(
    "question",
    [
        Question(engine="DeepSpeed", model=BERT),
        Question(engine="DeepSpeed", model=T5),
        Question(engine="DeepSpeed", model=T5, rolling_batch="auto"),
        Question(engine="DeepSpeed", model=LLAMA, rolling_batch="disable"),
        Question(engine="DeepSpeed", model=LLAMA, task="conversational"),
        Question(engine="DeepSpeed", model=LLAMA, task="fill-mask"),
        Question(engine="DeepSpeed", model=LLAMA, task="summarization"),
        Question(entry_point="djl_python.deepspeed", task="token-classification"),
    ],
)
def test_deepspeeds_handler_takes_what_needs_no_continuous_batching(question: Question) -> None:
    choice = choose(question, ALL)
    assert (choice.engine, choice.entry_point) == ("python", "djl_python.deepspeed")
    assert choice.reason
    named = replace(question, engine="DeepSpeed", rolling_batch="deepspeed")
    assert choose(named, ALL).engine == "deepspeed"  # which may then refuse the task
    with pytest.raises(NoEngine, match="deepspeed is not installed"):
        choose(question, HERE)


@pytest.mark.parametrize(
    "question",
    [
        Question(engine="DeepSpeed", model=LLAMA),
        Question(engine="DeepSpeed", model=LLAMA, task="text-generation"),
        Question(engine="DeepSpeed", model=LLAMA, rolling_batch="disable", async_mode=True),
        Question(entry_point="djl_python.deepspeed", model=LLAMA, rolling_batch="auto"),
        Question(rolling_batch="deepspeed", model=LLAMA, task="text-generation"),
    ],
)
def test_deepspeeds_engine_generates_text(question: Question) -> None:
    choice = choose(question, ALL)
    assert (choice.engine, choice.entry_point) == ("deepspeed", None)


def test_only_lmi_dist_generates_with_an_encoder_and_a_decoder() -> None:
    assert choose(Question(model=T5), ALL).engine == "lmi-dist"
    assert choose(Question(model=T5, task="text2text-generation"), ALL).engine == "lmi-dist"
    assert choose(Question(model=T5, task="summarization"), ALL).engine == "python"


def test_a_task_beats_the_architecture() -> None:
    assert choose(Question(model=LLAMA, task="text-embedding"), ALL).engine == "python"
    assert choose(Question(model=BERT, task="text-generation"), ALL).engine == "vllm"


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        (("vllm",), "vllm"),
        (("trtllm",), "trtllm"),
        (("vllm", "lmi-dist"), "lmi-dist"),
        (("unheard-of",), "vllm"),
    ],
)
def test_an_images_features_decide_what_nobody_else_does(
    features: tuple[str, ...], chosen: str
) -> None:
    assert choose(Question(features=features, model=LLAMA), ALL).engine == chosen
    named = Question(features=features, rolling_batch="deepspeed", model=LLAMA)
    assert choose(named, ALL).engine == "deepspeed"


def test_disable_beats_the_images_features_unless_async_mode_is_asked_for() -> None:
    for features, chosen in ((("trtllm",), "trtllm"), ((), "vllm")):
        question = Question(rolling_batch="disable", features=features, model=LLAMA)
        assert choose(question, ALL).engine == "python"
        assert choose(replace(question, async_mode=True), ALL).engine == chosen


def test_features_that_are_not_installed_are_told_in_the_reason() -> None:
    choice = choose(Question(features=("vllm",), model=LLAMA), HERE)
    assert choice.engine == "lmi-dist"
    assert "SERVING_FEATURES=vllm names nothing installed here" in choice.reason


@pytest.mark.parametrize(
    ("entry_point", "chosen"),
    [
        ("djl_python.huggingface", "vllm"),
        ("djl_python.deepspeed", "deepspeed"),
        ("djl_python.tensorrt_llm", "trtllm"),
        ("djl_python.lmi_vllm.vllm_async_service", "vllm"),
        ("djl_python.lmi_trtllm.trtllm_async_service", "trtllm"),
        ("djl_python.sklearn_handler", "python"),
    ],
)
def test_a_stock_handler_names_its_engine(entry_point: str, chosen: str) -> None:
    for rolling_batch in (None, "auto"):
        question = Question(entry_point=entry_point, rolling_batch=rolling_batch, model=LLAMA)
        assert choose(question, ALL).engine == chosen


def test_the_users_own_handler_beats_what_is_chosen_automatically() -> None:
    for rolling_batch in (None, "auto", "vllm"):
        question = Question(has_custom_handler=True, rolling_batch=rolling_batch, model=LLAMA)
        assert choose(question, ALL).engine == "python"


def test_an_engine_that_can_honour_every_option_goes_first() -> None:
    choice = choose(Question(model=LLAMA, unable={"vllm": ""}), ALL)
    assert choice.engine == "lmi-dist"
    assert "vllm can't honour every option set" in choice.reason


def test_the_reason_says_why_a_checkpoint_passed_an_engine_by() -> None:
    choice = choose(Question(model=LLAMA, unable={"vllm": "GPTQ, 3 bits: too few"}), ALL)
    assert choice.engine == "lmi-dist"
    assert "vllm can't: GPTQ, 3 bits: too few" in choice.reason


def test_an_images_feature_that_cannot_run_the_model_is_passed_by() -> None:
    question = Question(model=LLAMA, features=("vllm",), unable={"vllm": "no kernel"})
    choice = choose(question, {"vllm", "lmi-dist"})
    assert choice.engine == "lmi-dist"
    assert "vllm can't: no kernel" in choice.reason


def test_where_no_engine_can_honour_every_option_the_order_decides() -> None:
    choice = choose(Question(model=LLAMA, unable=dict.fromkeys(ALL, "")), ALL)
    assert choice.engine == "vllm"
    assert "honour" not in choice.reason


@pytest.mark.parametrize("name", ["vllm", "trtllm", "deepspeed"])
def test_what_is_named_but_not_installed_is_never_replaced(name: str) -> None:
    with pytest.raises(NoEngine) as caught:
        choose(Question(rolling_batch=name, model=LLAMA), HERE)
    assert caught.value.option == "option.rolling_batch"
    assert str(caught.value).endswith("lmi-dist would run it: write option.rolling_batch=lmi-dist")


def test_the_edit_that_is_suggested_works() -> None:
    for engine, rolling_batch in itertools.product(
        ("Python", "MPI", "DeepSpeed", "vLLM", "TensorRT-LLM", None),
        ("vllm", "trtllm", "deepspeed", "disable", "auto", None),
    ):
        question = Question(engine=engine, rolling_batch=rolling_batch, model=LLAMA)
        try:
            choose(question, HERE)
        except NoEngine as error:
            _, found, edits = str(error).partition("write ")
            if not found:
                continue  # a contradiction, or nothing here would run it
            said = dict(edit.split("=") for edit in edits.split(" and "))
            edited = Question(
                engine=said.get("engine", engine),
                rolling_batch=said["option.rolling_batch"],
                model=LLAMA,
            )
            assert choose(edited, HERE).engine == "lmi-dist"


def test_two_engines_named_at_once_are_a_contradiction() -> None:
    for engine, rolling_batch in (
        ("vLLM", "lmi-dist"),
        ("DeepSpeed", "vllm"),
        ("echo", "vllm"),
        ("lmi-dist", "deepspeed"),
    ):
        with pytest.raises(NoEngine, match="name two engines; keep one"):
            choose(Question(engine=engine, rolling_batch=rolling_batch, model=LLAMA), ALL)


@pytest.mark.parametrize("engine", FOREIGN_ENGINES)
def test_an_engine_of_the_java_server_is_refused_by_name(engine: str) -> None:
    with pytest.raises(NoEngine, match=f"{engine} runs in the DJL model server in Java only"):
        choose(Question(engine=engine), ALL)


def test_neuron_is_refused_as_a_whole() -> None:
    for question in (
        Question(rolling_batch="tnx"),
        Question(entry_point="djl_python.transformers_neuronx"),
    ):
        with pytest.raises(NoEngine, match="Neuron accelerators are not supported"):
            choose(question, {*ALL, "neuronx"})


_QUESTIONS = st.builds(
    Question,
    engine=st.sampled_from(["Python", "MPI", "DeepSpeed", "vLLM", "echo", "Rust", None]),
    rolling_batch=st.sampled_from(
        ["auto", "disable", "vllm", "lmi-dist", "scheduler", "tnx", None]
    ),
    task=st.sampled_from(["text-generation", "fill-mask", "auto", None]),
    entry_point=st.sampled_from(["djl_python.huggingface", "djl_python.deepspeed", None]),
    has_custom_handler=st.booleans(),
    features=st.sampled_from([(), ("vllm",), ("trtllm",), ("vllm", "lmi-dist")]),
    model=st.sampled_from([LLAMA, BERT, T5, None]),
    unable=st.dictionaries(st.sampled_from(sorted(ALL)), st.sampled_from(["", "a reason"])),
)


@given(_QUESTIONS, st.frozensets(st.sampled_from(sorted(ALL))))
def test_the_choice_is_installed_or_says_what_to_do(
    question: Question, installed: frozenset[str]
) -> None:
    try:
        choice = choose(question, installed)
    except NoEngine as error:
        message = str(error)
    else:
        assert choice.engine in installed
        message = choice.reason
    assert message
