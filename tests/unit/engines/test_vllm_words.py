"""What vLLM's worker is told, and what its answers become: without vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmi.config import resolve
from lmi.config.vllm_arguments import arguments
from lmi.core import BadPayload, ConfigError, Finish, Grammar, UnknownAdapter
from lmi.dist.messages import CoreEvent, CoreRequest
from lmi.engines import BoundSpec
from lmi.engines.vllm.adapter_files import base_shapes, check_adapter
from lmi.engines.vllm.arguments import command_line, values
from lmi.engines.vllm.environment import worker_variables
from lmi.engines.vllm.events import Speaker
from lmi.engines.vllm.sampling import constraint, fields

MODEL = Path("/models/one")
KNOWN = arguments("0.32.0")
# Three releases, and the newest: what exists in each is told by the table of its own source.
RELEASES = ("0.10.2", "0.14.0", "0.23.0", "0.32.0")


def bound(**options: str) -> BoundSpec:
    flags = {"engine": "vLLM", "option.model_id": "org/model", **options}
    return BoundSpec(resolve(None, {}, flags, installed={"vllm"}).spec, MODEL)


def told(release: str = "0.32.0", **options: str) -> dict[str, Any]:
    return values(bound(**options), arguments(release), 1)


def test_the_words_are_those_of_vllms_command_line() -> None:
    options = {
        "option.enforce_eager": "true",
        "option.enable_prefix_caching": "false",
        "option.kv_events_config": '{"enable": true}',
        "option.cudagraph_capture_sizes": "1,2",
        "option.load_format": "-odd",
    }
    words = command_line(bound(**options), KNOWN, 2)
    assert words[:5] == (
        f"--model={MODEL}",
        "--dtype=auto",
        "--no-trust-remote-code",
        "--tensor-parallel-size=2",
        "--max-num-seqs=32",
    )
    for part in (
        ("--enforce-eager",),
        ("--no-enable-prefix-caching",),
        ("--kv-events-config", '{"enable": true}'),
        ("--cudagraph-capture-sizes", "1", "2"),
        ("--load-format=-odd",),
    ):
        place = words.index(part[0])
        assert words[place : place + len(part)] == part


@pytest.mark.parametrize(
    ("option", "text", "name", "value"),
    [
        ("max_rolling_batch_size", "7", "max_num_seqs", 7),
        ("max_rolling_batch_prefill_tokens", "2K", "max_num_batched_tokens", 2048),
        ("max_model_len", "4k", "max_model_len", 4000),
        ("kv_cache_memory", "1GiB", "kv_cache_memory_bytes", 2**30),
        ("quantize", "awq", "quantization", "awq"),
        ("quantize", "bitsandbytes8", "quantization", "bitsandbytes"),
        ("cpu_offload_gb_per_gpu", "1.5", "cpu_offload_gb", 1.5),
        ("pipeline_parallel_degree", "2", "pipeline_parallel_size", 2),
        ("dtype", "fp32", "dtype", "float32"),
        ("dtype", "bf16", "dtype", "bfloat16"),
        ("trust_remote_code", "true", "trust_remote_code", True),
        ("limit_mm_per_prompt", "image=2,video=1", "limit_mm_per_prompt", {"image": 2, "video": 1}),
        ("limit_mm_per_prompt", '{"image": 3}', "limit_mm_per_prompt", {"image": 3}),
        ("scheduling_policy", "priority", "scheduling_policy", "priority"),
        ("attention_config", '{"backend": "X"}', "attention_config", {"backend": "X"}),
    ],
)
def test_an_option_becomes_the_argument_of_its_name(
    option: str, text: str, name: str, value: object
) -> None:
    assert told(**{f"option.{option}": text})[name] == value


def test_adapters_have_lmis_defaults() -> None:
    assert "max_loras" not in told()
    lora = told(**{"option.enable_lora": "true"})
    assert (lora["max_loras"], lora["max_lora_rank"]) == (4, 16)
    assert told(**{"option.enable_lora": "true", "option.max_loras": "2"})["max_loras"] == 2


def test_a_draft_model_is_one_argument() -> None:
    draft = {"option.speculative_draft_model": "/models/draft"}
    assert told(**draft)["speculative_config"] == {
        "num_speculative_tokens": 5,
        "model": "/models/draft",
    }
    more = {**draft, "option.speculative_length": "3", "option.draft_model_tp_size": "2"}
    assert told(**more)["speculative_config"] == {
        "model": "/models/draft",
        "num_speculative_tokens": 3,
        "draft_tensor_parallel_size": 2,
    }
    assert "speculative_config" not in told(**draft, **{"option.speculative_length": "0"})


def test_two_ways_to_say_the_draft_are_a_contradiction() -> None:
    both = {
        "option.speculative_draft_model": "/models/draft",
        "option.speculative_config": '{"method": "ngram"}',
    }
    with pytest.raises(ConfigError, match="says the same; keep one of them"):
        told(**both)
    with pytest.raises(ConfigError, match=r"expected option\.speculative_draft_model beside it"):
        told(**{"option.speculative_length": "3"})


@pytest.mark.parametrize("release", RELEASES)
def test_every_word_is_an_argument_of_the_release(release: str) -> None:
    options = {
        "option.enable_lora": "true",
        "option.quantize": "awq",
        "option.speculative_draft_model": "/models/draft",
        "option.max_model_len": "99",
        "option.enforce_eager": "true",
        "option.kv_cache_dtype": "fp8",
        "option.gpu_memory_utilization": "0.5",
    }
    found = told(release, **options)
    assert set(found) <= set(arguments(release))
    assert {"enable_lora", "quantization", "speculative_config", "max_num_seqs"} <= set(found)


def variables(
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    **options: str,
) -> dict[str, str]:
    return worker_variables(bound(**options).spec, MODEL, arguments or {}, environ or {})


def test_the_worker_runs_vllm_in_itself_and_fetches_nothing() -> None:
    found = variables()
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["VLLM_NO_USAGE_STATS"] == "1"
    assert "OMP_NUM_THREADS" not in found
    assert variables(**{"option.threads": "3"})["OMP_NUM_THREADS"] == "3"


def test_what_the_user_has_set_stays() -> None:
    mine = {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    found = variables(mine)
    assert "VLLM_LOGGING_LEVEL" not in found
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_on_a_processor_the_cache_has_a_size_unless_something_says_it() -> None:
    name = "VLLM_CPU_KVCACHE_SPACE"
    assert variables({"CUDA_VISIBLE_DEVICES": ""})[name] == "4"
    assert name not in variables({"CUDA_VISIBLE_DEVICES": "0"})
    assert name not in variables({name: "1"})
    for argument in ("gpu_memory_utilization", "kv_cache_memory_bytes"):
        assert name not in variables(arguments={argument: 1})


def test_a_draft_of_the_hub_may_be_fetched() -> None:
    assert "HF_HUB_OFFLINE" not in variables(
        arguments={"speculative_config": {"model": "org/draft"}}
    )


def test_lmcaches_file_is_found_in_the_models_folder() -> None:
    found = variables(**{"option.lmcache_config_file": "cache.yaml"})
    assert found["LMCACHE_CONFIG_FILE"] == str(MODEL / "cache.yaml")


def test_each_choice_has_its_own_seed_and_only_the_first_shows_the_prompt() -> None:
    request = CoreRequest(1, (1, 2), seed=-1, prompt_logprobs=True, prompt_top=3, choices=2)
    first, second = fields(request, 0), fields(request, 1)
    assert first["seed"] == 2**63 - 1  # vLLM would take -1 for none
    assert second["seed"] == 0
    assert (first["prompt_logprobs"], second["prompt_logprobs"]) == (3, None)
    assert fields(CoreRequest(1, (1,), prompt_logprobs=True), 0)["prompt_logprobs"] == 0


def test_a_grammar_is_one_field() -> None:
    assert constraint(Grammar("json_object")) == {"json_object": True}
    assert constraint(Grammar("choice", '["a", "b"]')) == {"choice": ["a", "b"]}
    for kind in ("json", "regex", "grammar", "structural_tag"):
        assert constraint(Grammar(kind, "x")) == {kind: "x"}  # type: ignore[arg-type]
    for text in ("", "{}", '["a", 1]'):
        with pytest.raises(BadPayload):
            constraint(Grammar("choice", text))


def output(tokens: list[int], reason: str | None = None, **more: Any) -> SimpleNamespace:
    """An EngineCoreOutput, as far as it is read."""
    base = {
        "new_token_ids": tokens,
        "finish_reason": reason,
        "stop_reason": None,
        "new_logprobs": None,
        "new_prompt_logprobs_tensors": None,
        "prefill_stats": None,
    }
    return SimpleNamespace(**{**base, **more})


def heard(request: CoreRequest, *outputs: SimpleNamespace) -> tuple[list[CoreEvent], bool]:
    speaker, events, over = Speaker(request, 1), [], False
    for each in outputs:
        over = speaker.hear(each, events)
    return events, over


def test_several_tokens_of_a_step_are_events_in_order_and_the_last_has_the_finish() -> None:
    events, over = heard(CoreRequest(7, (1,)), output([5]), output([6, 8], "length"))
    assert over
    assert [(e.request_id, e.choice, e.token, e.finish) for e in events] == [
        (7, 1, 5, None),
        (7, 1, 6, None),
        (7, 1, 8, Finish.LENGTH),
    ]


@pytest.mark.parametrize(
    ("stop", "finish"), [(None, Finish.EOS), (9, Finish.STOP), (10, Finish.EOS)]
)
def test_a_stop_is_the_requests_or_the_models(stop: int | None, finish: Finish) -> None:
    request = CoreRequest(1, (1,), stop_token_ids=(9,))
    events, _ = heard(request, output([9], "stop", stop_reason=stop))
    assert events[0].finish is finish


@pytest.mark.parametrize("reason", ["error", "abort", "length"])
def test_an_end_without_a_token_is_an_error(reason: str) -> None:
    events, over = heard(CoreRequest(1, (1,)), output([], reason))
    assert over
    assert (events[0].token, events[0].finish) == (None, Finish.ERROR)
    assert events[0].detail is not None
    assert events[0].detail.error is not None


def test_a_failed_grammar_is_the_clients_error() -> None:
    request = CoreRequest(1, (1,), grammar=Grammar("regex", "a"))
    events, _ = heard(request, output([], "error"))
    assert events[0].detail is not None
    assert events[0].detail.error is not None
    assert isinstance(events[0].detail.error.exception(), BadPayload)


def test_logprobs_are_cut_to_what_was_asked_for() -> None:
    rows = SimpleNamespace(
        logprob_token_ids=np.array([[5, 5, 6, 7]]), logprobs=np.array([[-0.5, -0.5, -1.0, -2.0]])
    )
    (event,), _ = heard(CoreRequest(1, (1,), logprobs=2), output([5], new_logprobs=rows))
    assert (event.logprob, event.top) == (-0.5, ((5, -0.5), (6, -1.0)))
    (event,), _ = heard(CoreRequest(1, (1,)), output([5], new_logprobs=rows))
    assert (event.logprob, event.top) == (None, ())


def test_the_prompt_and_the_cached_tokens_come_with_the_first_token_only() -> None:
    rows = SimpleNamespace(
        logprob_token_ids=np.array([[2, 9, 8]]), logprobs=np.array([[-3.0, -0.1, -0.2]])
    )
    request = CoreRequest(1, (1, 2), prompt_logprobs=True, prompt_top=1)
    first = output(
        [4], new_prompt_logprobs_tensors=rows, prefill_stats=SimpleNamespace(num_cached_tokens=1)
    )
    events, _ = heard(request, first, output([5]))
    assert events[0].detail is not None
    assert events[0].detail.prompt == ((1, None), (2, -3.0))
    assert events[0].detail.prompt_top == ((), ((9, -0.1),))
    assert events[0].detail.cached_tokens == 1
    assert events[1].detail is None


def adapter(folder: Path, config: object = None, **shapes: tuple[int, int]) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config or {"r": 2, "peft_type": "LORA"}))
    name = "base_model.model.layer.q"
    weights = {
        f"{name}.lora_{side}.weight": np.zeros(shape, np.float32) for side, shape in shapes.items()
    }
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_that_fits_is_let_in(tmp_path: Path) -> None:
    save_file({"layer.q.weight": np.zeros((6, 4), np.float32)}, tmp_path / "model.safetensors")
    base = base_shapes(tmp_path)
    assert base == {"layer.q.weight": (6, 4)}
    check_adapter("a", adapter(tmp_path / "a", A=(2, 4), B=(6, 2)), base, 2)


@pytest.mark.parametrize(
    ("config", "shapes", "why"),
    [
        ({"r": 3}, {"A": (3, 4), "B": (6, 3)}, r"its rank is 3: option\.max_lora_rank allows 2"),
        ({"r": 1, "rank_pattern": {"q": 4}}, {}, "its rank is 4"),
        ({"r": "many"}, {}, "has no rank"),
        ({"lora_alpha": 2}, {}, "has no rank"),
        ({"r": 2, "peft_type": "IA3"}, {}, "describes no LoRA adapter"),
        ([1], {}, "describes no LoRA adapter"),
        (None, {"A": (2, 5)}, r"is 2x5, but the model's layer\.q takes rank x 4"),
        (None, {"B": (5, 2)}, r"is 5x2, but the model's layer\.q takes 6 x rank"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_what_is_wrong(
    tmp_path: Path, config: object, shapes: dict[str, tuple[int, int]], why: str
) -> None:
    folder = adapter(tmp_path / "a", config, **shapes)
    with pytest.raises(UnknownAdapter, match=why):
        check_adapter("a", folder, {"layer.q.weight": (6, 4)}, 2)


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", A=(2, 4))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UnknownAdapter, match="only safetensors are loaded"):
        check_adapter("a", folder, {}, 2)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(UnknownAdapter, match=r"has no adapter_config\.json"):
        check_adapter("a", folder, {}, 2)
    with pytest.raises(UnknownAdapter, match="there is no folder"):
        check_adapter("a", tmp_path / "nowhere", {}, 2)
