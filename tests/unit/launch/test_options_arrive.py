"""No setting is ignored: each option that LMI-Dist is said to use changes what somebody is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmi.config import ModelSpec, Resolution, resolve
from lmi.config.options import TABLE, Verdict
from lmi.config.resolution import Fate
from lmi.core import ConfigError
from lmi.engines import BoundSpec
from lmi.engines.lmi_dist import by_mpirun, smoothing
from lmi.engines.lmi_dist import config as dist_config
from lmi.launch.model import session_config
from lmi.launch.preflight import preflight
from lmi.launch.serve import Address, server_config

MODEL = Path("/models/one")


def dist(spec: ModelSpec) -> object:
    return dist_config(BoundSpec(spec, MODEL))


def server(spec: ModelSpec) -> object:
    return server_config(spec, Address())


# An option's key, a text that is not its default, and who must notice.
NOTICED_BY: dict[str, tuple[str, Callable[[ModelSpec], object]]] = {
    "option.model_id": ("org/other", lambda spec: spec.model),
    "option.model_dir": ("/models/other", lambda spec: spec.model),
    "option.revision": ("main", lambda spec: spec.revision),
    "option.trust_remote_code": ("true", dist),
    "option.dtype": ("bf16", dist),
    "option.max_rolling_batch_size": ("7", dist),
    "option.max_rolling_batch_prefill_tokens": ("77", dist),
    "option.max_model_len": ("99", dist),
    "option.block_size": ("32", dist),
    "option.kv_cache_memory": ("1GiB", dist),
    "option.threads": ("1", dist),
    "option.tensor_parallel_degree": ("2", dist),
    "option.use_custom_all_reduce": ("false", dist),
    "option.collective_timeout": ("5", dist),
    "option.enable_prefix_caching": ("true", dist),
    "option.speculative_tokens": ("3", dist),
    "option.speculative_ngram": ("3", dist),
    "option.gpu_memory_utilization": ("0.5", dist),
    "option.enforce_eager": ("true", dist),
    "option.runtime": ("transformers", dist),
    "option.quantize": ("fp8", dist),
    "option.kv_cache_dtype": ("fp8", dist),
    "option.mpi_mode": ("true", lambda spec: by_mpirun(BoundSpec(spec, MODEL))),
    "option.served_model_name": ("mine", lambda spec: session_config(spec).served_names),
    "option.chat_template_content_format": (
        "openai",
        lambda spec: spec.options.get("chat_template_content_format"),
    ),
    "option.chat_template": ("{{ messages }}", lambda spec: spec.options.get("chat_template")),
    "option.output_formatter": ("sse", session_config),
    "option.tgi_compat": ("true", session_config),
    "option.compat": ("0.25", session_config),
    "option.strict_parameters": ("true", session_config),
    "option.predict_timeout": ("5", session_config),
    "option.model_loading_timeout": ("5", lambda spec: spec.model_loading_timeout),
    "option.drain_seconds": ("5", server),
    "retry_threshold": ("9", session_config),
    "job_queue_size": ("9", session_config),
    "inference_address": ("http://127.0.0.2:81", server),
    "max_request_size": ("1000", server),
    "throttle_error_http_code": ("503", server),
    "request_id_header_key": ("x-my-id", server),
    "download_dir": ("/downloads", lambda spec: spec.server.download_dir),
}

# Read where option.quantize=smoothquant is set too.
BY_SMOOTHQUANT = {
    "option.smoothquant_alpha": ("0.75", "alpha", 0.75),
    "option.calibration_data": (__file__, "calibration", Path(__file__)),
}

# Read while resolving: what they decide is tested with the configuration.
DECIDED_WHILE_RESOLVING = {
    "engine",
    "option.rolling_batch",
    "option.task",
    "option.unknown_options",
    "option.entryPoint",
    "features",
}


def resolution_of(**options: str) -> Resolution:
    base = {"engine": "lmi-dist", "option.model_id": "org/model"}
    flags = {**base, **options}
    if "option.model_dir" in options:
        del flags["option.model_id"]
    return resolve(None, {}, flags, installed={"lmi-dist", "echo"})


def spec_of(**options: str) -> ModelSpec:
    return resolution_of(**options).spec


def test_every_option_that_is_said_to_be_used_has_its_proof_here() -> None:
    used = {o.key for o in TABLE if o.use("lmi-dist").verdict is Verdict.USED}
    assert used - DECIDED_WHILE_RESOLVING == {*NOTICED_BY, *BY_SMOOTHQUANT}


@pytest.mark.parametrize("key", NOTICED_BY)
def test_an_option_arrives(key: str) -> None:
    text, seen = NOTICED_BY[key]
    assert seen(spec_of(**{key: text})) != seen(spec_of())


@pytest.mark.parametrize("key", BY_SMOOTHQUANT)
def test_what_smoothquant_is_told_arrives_with_it_and_is_reported_without(key: str) -> None:
    text, name, value = BY_SMOOTHQUANT[key]
    with_it = {"option.quantize": "smoothquant", key: text}
    assert smoothing(spec_of(**with_it))[name] == value
    alone = resolution_of(**{key: text})
    assert name not in smoothing(alone.spec)
    (setting,) = (each for each in alone.settings if each.key == key)
    assert setting.fate is Fate.ADVISORY
    assert "option.quantize=smoothquant" in setting.note


def test_a_checkpoint_of_the_method_is_loaded_as_it_is(tmp_path: Path) -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = spec_of(**{"option.model_id": str(tmp_path), "option.quantize": "fp8"})
    assert dist_config(BoundSpec(spec, tmp_path)).quantize == "none"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert dist_config(BoundSpec(spec, tmp_path)).quantize == "fp8"


@pytest.mark.parametrize("text", ["1", "2", "max"])
def test_the_degree_of_a_model_that_is_not_here_yet_is_looked_at_later(text: str) -> None:
    preflight(resolution_of(**{"option.tensor_parallel_degree": text}))


def test_a_degree_that_does_not_divide_a_model_is_refused_with_origin_and_what_works(
    tmp_path: Path,
) -> None:
    size = {"vocab_size": 8, "hidden_size": 36, "num_hidden_layers": 1, "intermediate_size": 36}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **size, **heads}))
    options = {"option.model_id": str(tmp_path), "option.tensor_parallel_degree": "2"}
    with pytest.raises(ConfigError, match=r"9 heads and 3 KV heads .* expected 1 or 3") as refused:
        preflight(resolution_of(**options))
    assert "--set option.tensor_parallel_degree" in refused.value.source


def test_engines_with_one_device_refuse_a_degree() -> None:
    options = {"engine": "echo", "option.tensor_parallel_degree": "2"}
    with pytest.raises(ConfigError, match="expected 1"):
        preflight(resolution_of(**options))


def test_a_session_has_the_models_name() -> None:
    assert session_config(spec_of(**{"option.model_id": "org/my-model"})).model == "org_my_model"
