"""vLLM's recorded arguments, and the tool that records them."""

import pytest

from lmi.config.vllm_arguments import Argument, arguments, releases
from tools.record_vllm_arguments import ARGUMENTS, RELEASES, Kind, spans
from tools.record_vllm_arguments import arguments as derive

SOURCE = '''
import enum
from typing import Any, Literal, Optional, Union

if TYPE_CHECKING:
    from somewhere import Executor
else:
    Fallback = Literal["eager", "lazy"]
Runner = Literal["generate", "pooling"]
RunnerOption = Literal["auto", Runner]
METHODS = {"awq": Awq, "gptq": Gptq}
DEVICES = ["auto", "cuda"]


class Format(str, enum.Enum):
    AUTO = "auto"
    HF = "hf"


class CacheConfig:
    pass


class EngineArgs:
    """Documented."""

    model: str = "m"
    seed: Optional[int] = None
    swap_space: float = 4  # GiB
    enforce_eager: bool | None = None
    hf_token: bool | str | None = None
    runner: RunnerOption = "auto"
    format: Format = Format.AUTO
    other_format: Format = Format.AUTO
    fallback: Fallback = "eager"
    opened_by_hand: Literal["a", "b"] = "a"
    rank: Literal[1, 8] = 1
    level: "Literal['low', 'high'] | None" = None
    names: list[str] | None = None
    name_or_names: Optional[Union[str, list[str]]] = None
    limits: dict[str, int] = field(default_factory=dict)
    cache_config: CacheConfig | None = None
    elsewhere_config: ElsewhereConfig = None
    executor: type[Executor] | Literal["ray", "mp"] | None = None
    attention: AttentionEnum | None = None
    quantization: Optional[str] = None
    device: str = "auto"
    unreadable: str = ""
    kvs: Optional[Mapping[str, int]] = None
    max_model_len: int = 0
    max_num_batched_tokens: int = 0
    cache_bytes: int = 0
    _internal: int = 0

    def from_cli(self):
        local: int = 3

    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--quantization", "-q", choices=[*METHODS, None], default=None)
        group.add_argument("--device", type=str, choices=DEVICES)
        group.add_argument("--format", choices=[f.value for f in Format])
        group.add_argument("--opened-by-hand", type=str)
        group.add_argument("--unreadable", choices=list(Registry.names))
        group.add_argument("--kvs", type=nullable_kvs)
        group.add_argument("--not-a-field", choices=["a"])


class AsyncEngineArgs(EngineArgs):
    enable_log_requests: bool = False


def get_kwargs(cls):
    for field in fields(cls):
        readable = {"max_num_batched_tokens", "cache_bytes"}
        if name == "max_model_len":
            kwargs[name]["type"] = human_readable_int_or_auto
        elif name in readable:
            kwargs[name]["type"] = human_readable_int
        elif name in ("seed",):
            kwargs[name]["type"] = int
'''


def test_a_field_becomes_what_vllm_makes_of_its_annotation():
    assert derive({ARGUMENTS: SOURCE}) == {
        "model": Kind("str"),
        "seed": Kind("int"),
        "swap_space": Kind("float"),
        "enforce_eager": Kind("bool"),
        "hf_token": Kind("str"),
        "runner": Kind("choice", ("auto", "generate", "pooling")),
        "format": Kind("choice", ("auto", "hf")),
        "other_format": Kind("str"),
        "fallback": Kind("choice", ("eager", "lazy")),
        "opened_by_hand": Kind("str"),
        "rank": Kind("choice", ("1", "8")),
        "level": Kind("choice", ("low", "high")),
        "names": Kind("list"),
        "name_or_names": Kind("str"),
        "limits": Kind("json"),
        "cache_config": Kind("json"),
        "elsewhere_config": Kind("json"),
        "executor": Kind("choice", ("ray", "mp")),
        "attention": Kind("str"),
        "quantization": Kind("choice", ("awq", "gptq")),
        "device": Kind("choice", ("auto", "cuda")),
        "unreadable": Kind("str"),
        "kvs": Kind("str"),
        "max_model_len": Kind("size"),
        "max_num_batched_tokens": Kind("size"),
        "cache_bytes": Kind("size"),
        "enable_log_requests": Kind("bool"),
    }


def test_a_choice_declared_in_another_module_is_found():
    quantization = "QuantizationMethods = Literal['awq', 'fp8']"
    source = "class EngineArgs:\n    quantization: QuantizationMethods | None = None\n"
    source += "class AsyncEngineArgs(EngineArgs):\n    pass\n"
    found = derive({ARGUMENTS: source, "vllm/model_executor/quantization.py": quantization})
    assert found == {"quantization": Kind("choice", ("awq", "fp8"))}


def test_a_span_ends_where_the_kind_changes_or_the_argument_is_missing():
    number, text = Kind("int"), Kind("choice", ("a",))
    recorded = {"1": {"x": number}, "2": {"x": number}, "3": {"x": text}, "4": {}, "5": {"x": text}}
    assert spans(recorded) == {
        "x": [["1", "2", "int"], ["3", "3", "choice", ["a"]], ["5", "5", "choice", ["a"]]]
    }


def test_every_release_of_the_tool_is_recorded():
    assert releases() == tuple(requirement.partition("==")[2] for requirement in RELEASES)


@pytest.mark.parametrize(
    ("release", "name", "type_", "choices"),
    [
        ("0.2.1.post1", "quantization", "choice", ("awq",)),
        ("0.2.7", "quantization", "choice", ("awq", "gptq", "squeezellm")),
        ("0.2.1.post1", "disable_log_requests", "bool", ()),
        ("0.4.2", "enable_prefix_caching", "bool", ()),
        ("0.5.3.post1", "rope_scaling", "json", ()),
        ("0.6.3.post1", "limit_mm_per_prompt", "str", ()),
        ("0.6.3.post1", "max_model_len", "int", ()),
        ("0.8.4", "max_model_len", "size", ()),
        ("0.10.2", "limit_mm_per_prompt", "json", ()),
        ("0.10.2", "speculative_config", "json", ()),
        ("0.18.0", "kv_cache_memory_bytes", "size", ()),
        ("0.32.0", "tokenizer_mode", "str", ()),
        ("0.32.0", "scheduling_policy", "choice", ("fcfs", "priority")),
        ("0.32.0", "gpu_memory_utilization", "float", ()),
    ],
)
def test_a_release_has_the_arguments_that_its_source_declares(release, name, type_, choices):
    argument = arguments(release)[name]
    assert (argument.type, argument.choices) == (type_, choices)


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("0.2.1.post1", "enforce_eager"),
        ("0.8.4", "speculative_model"),
        ("0.18.0", "swap_space"),
        ("0.32.0", "task"),
        ("0.32.0", "_api_process_count"),
    ],
)
def test_a_release_lacks_what_came_later_or_was_removed(release, name):
    assert name not in arguments(release)


def test_an_argument_says_where_it_begins_and_ends():
    assert arguments("0.8.4")["swap_space"] == Argument(
        "swap_space", "float", (), "0.2.1.post1", "0.17.1"
    )


def test_a_release_between_two_has_the_arguments_of_the_one_before():
    assert arguments("0.5.4") == arguments("0.5.3.post1")
    assert arguments("0.10.3+cpu") == arguments("0.10.2")
    assert arguments("0.9.2") == arguments("0.8.4")
    assert arguments("0.0.1") == arguments("0.2.1.post1")
    assert arguments("1.0") == arguments("0.32.0")


def test_all_releases_together_have_every_argument_at_its_widest():
    union = arguments()
    assert set(union) == {name for release in releases() for name in arguments(release)}
    assert union["max_model_len"].type == "size"
    assert union["seed"].type == "int"
    assert union["cpu_offload_gb"].type == "float"
    assert union["max_lora_rank"].type == "int"
    assert union["limit_mm_per_prompt"].type == "str"
    assert union["quantization"].type == "str"
    assert union["prefix_caching_hash_algo"].choices[:3] == ("builtin", "sha256", "sha256_cbor")


def test_what_one_release_reads_all_together_read_too():
    accepted_by = {"int": {"int", "size", "float", "list", "str"}, "list": {"list", "str"}}
    for release in releases():
        for name, argument in arguments(release).items():
            wide = arguments()[name]
            if argument.type == "choice":
                assert wide.type in {"str", "int", "size"} or {*argument.choices} <= {*wide.choices}
            else:
                assert wide.type in accepted_by.get(argument.type, {argument.type, "str"}), name
            assert (wide.first, wide.last) == (argument.first, argument.last)


def test_the_table_cannot_be_changed_by_a_reader():
    with pytest.raises(TypeError):
        arguments()["model"] = arguments()["seed"]


@pytest.mark.parametrize("release", ["", "newest", "v0.8.4", "0"])
def test_text_that_is_no_release_is_refused(release):
    with pytest.raises(ValueError, match=r"is no release of vLLM: expected one such as 0\.10\.2"):
        arguments(release)
