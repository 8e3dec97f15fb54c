"""The installed vLLM agrees with its recorded table, and every option arrives in its arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmi.config import resolve
from lmi.config.vllm_arguments import Argument, arguments, installed_release, releases
from lmi.config.vllm_rules import DECIDED
from lmi.engines import BoundSpec
from lmi.engines.vllm.arguments import command_line
from tools.record_vllm_arguments import arguments as derive
from tools.record_vllm_arguments import installed_sources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

MODEL = Path("/models/one")

# A text for each option of LMI's that vLLM is said to use, and the argument that it becomes.
ARRIVES: dict[str, tuple[str, str, object]] = {
    "dtype": ("fp32", "dtype", "float32"),
    "trust_remote_code": ("true", "trust_remote_code", True),
    "tensor_parallel_degree": ("2", "tensor_parallel_size", 2),
    "pipeline_parallel_degree": ("2", "pipeline_parallel_size", 2),
    "max_rolling_batch_size": ("7", "max_num_seqs", 7),
    "max_rolling_batch_prefill_tokens": ("77", "max_num_batched_tokens", 77),
    "max_model_len": ("4K", "max_model_len", 4096),
    "load_format": ("dummy", "load_format", "dummy"),
    "quantize": ("awq", "quantization", "awq"),
    "gpu_memory_utilization": ("0.5", "gpu_memory_utilization", 0.5),
    "block_size": ("32", "block_size", 32),
    "kv_cache_memory": ("1GiB", "kv_cache_memory_bytes", 2**30),
    "kv_cache_dtype": ("fp8", "kv_cache_dtype", "fp8"),
    "seed": ("5", "seed", 5),
    "enforce_eager": ("true", "enforce_eager", True),
    "enable_chunked_prefill": ("false", "enable_chunked_prefill", False),
    "enable_prefix_caching": ("false", "enable_prefix_caching", False),
    "disable_sliding_window": ("true", "disable_sliding_window", True),
    "cpu_offload_gb_per_gpu": ("2", "cpu_offload_gb", 2.0),
    "max_logprobs": ("7", "max_logprobs", 7),
    "tokenizer_mode": ("slow", "tokenizer_mode", "slow"),
    "enable_lora": ("true", "enable_lora", True),
    "max_loras": ("3", "max_loras", 3),
    "max_lora_rank": ("32", "max_lora_rank", 32),
    "max_cpu_loras": ("9", "max_cpu_loras", 9),
    "lora_dtype": ("bfloat16", "lora_dtype", "bfloat16"),
    "fully_sharded_loras": ("true", "fully_sharded_loras", True),
    "speculative_draft_model": (
        "/models/draft",
        "speculative_config",
        {"num_speculative_tokens": 5, "model": "/models/draft"},
    ),
    "reasoning_parser": ("deepseek_r1", "reasoning_parser", "deepseek_r1"),
    "limit_mm_per_prompt": ('{"image": 2}', "limit_mm_per_prompt", {"image": 2}),
    # vLLM's own names
    "speculative_config": ('{"method": "ngram"}', "speculative_config", {"method": "ngram"}),
    "scheduling_policy": ("priority", "scheduling_policy", "priority"),
    "hf_overrides": ('{"a": 1}', "hf_overrides", {"a": 1}),
    "cudagraph_capture_sizes": ("1,4", "cudagraph_capture_sizes", [1, 4]),
}


# vLLM is imported in a process of its own: it changes the one it lives in.
READ = """
import dataclasses, json, sys
from lmi.engines.vllm.stepped import engine_arguments, parser
cases = json.load(sys.stdin)
found = {name: vars(engine_arguments(words)) for name, words in cases.items()}
json.dump([found, list(parser()._option_string_actions)], sys.stdout, default=str)
"""


def words(option: str) -> tuple[str, ...]:
    """What the worker is told for one option and its text."""
    text = ARRIVES[option][0]
    flags = {"engine": "vLLM", "option.model_id": "org/model", f"option.{option}": text}
    if "lora" in option:
        flags["option.enable_lora"] = "true"
    release = installed_release()
    spec = resolve(None, {}, flags, installed={"vllm"}, vllm=release).spec
    degree = spec.tensor_parallel_degree
    ranks = degree if isinstance(degree, int) else 1
    return command_line(BoundSpec(spec, MODEL), arguments(release), ranks)


@pytest.fixture(scope="module")
def read() -> tuple[dict[str, Any], set[str]]:
    """vLLM's EngineArgs for each option, by its own parser; and all words of that parser."""
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps({option: words(option) for option in ARRIVES}),
        capture_output=True,
        check=True,
        text=True,
        timeout=250,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "0"},
    )
    found, flags = json.loads(done.stdout[done.stdout.index("[{") :])
    return found, set(flags)


@pytest.mark.parametrize("option", ARRIVES)
def test_an_option_arrives(option: str, read: tuple[dict[str, Any], set[str]]) -> None:
    _, name, value = ARRIVES[option]
    assert read[0][option][name] == value


def test_every_recorded_argument_is_one_of_the_parser(
    read: tuple[dict[str, Any], set[str]],
) -> None:
    known = arguments(installed_release())
    missing = {name for name in known if f"--{name.replace('_', '-')}" not in read[1]}
    assert missing - set(DECIDED) == set()


def test_the_table_of_the_installed_release_is_what_its_source_declares() -> None:
    release = (installed_release() or "").partition("+")[0]
    if release not in releases():
        pytest.skip(f"vLLM {release} is not recorded")
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    found = derive(installed_sources(Path(spec.origin).parent.parent))
    recorded = arguments(release)
    assert set(found) == set(recorded)
    for name, kind in found.items():
        argument: Argument = recorded[name]
        assert (argument.type, argument.choices) == (kind.type, kind.choices), name


def test_no_vllm_is_imported_to_check_a_configuration() -> None:
    program = (
        "import sys; from lmi.config import resolve;"
        "from lmi.config.vllm_arguments import installed_release as found;"
        "from lmi.engines import BoundSpec; from lmi.engines.vllm.load import config;"
        "from pathlib import Path;"
        "flags = {'engine': 'vLLM', 'option.model_id': 'a/b', 'option.scheduling_policy': 'fcfs'};"
        "spec = resolve(None, {}, flags, installed={'vllm'}, vllm=found()).spec;"
        "config(BoundSpec(spec, Path('/')));"
        "print(sorted({'vllm', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert json.loads(done.stdout.replace("'", '"')) == []
