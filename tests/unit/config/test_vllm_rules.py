"""An argument of vLLM is judged by the release that will run it."""

from __future__ import annotations

import pytest

from lmi.config import ConfigErrors, resolve
from lmi.config.vllm_arguments import arguments
from lmi.config.vllm_rules import DECIDED, parse


def spec_of(release: str | None, **options: str):
    flags = {"engine": "vLLM", "option.model_id": "org/model"}
    flags |= {f"option.{name}": text for name, text in options.items()}
    return resolve(None, {}, flags, installed={"vllm"}, vllm=release).spec


def test_an_argument_that_the_release_lacks_is_refused_with_those_that_have_it():
    with pytest.raises(
        ConfigErrors, match=r"vLLM 0\.32\.0, which is installed, has no such .*; 0\.2\.7 to"
    ):
        spec_of("0.32.0", max_context_len_to_capture="8")
    assert (
        spec_of("0.5.3.post1", max_context_len_to_capture="8").options["max_context_len_to_capture"]
        == 8
    )


def test_without_an_installed_release_every_recorded_argument_goes():
    assert spec_of(None, max_context_len_to_capture="8")


def test_a_misspelt_argument_is_told_the_nearest():
    with pytest.raises(ConfigErrors, match=r"did you mean option\.scheduling_policy"):
        spec_of("0.32.0", scheduling_polcy="fcfs")


@pytest.mark.parametrize(
    ("release", "name", "text", "value"),
    [
        ("0.32.0", "scheduling_policy", "priority", "priority"),
        ("0.32.0", "hf_overrides", '{"a": 1}', {"a": 1}),
        ("0.32.0", "cudagraph_capture_sizes", "1, 2", ["1", "2"]),
        ("0.32.0", "cudagraph_capture_sizes", "[1, 2]", [1, 2]),
        ("0.32.0", "max_num_scheduled_tokens", "16k", "16k"),
        ("0.14.0", "async_scheduling", "true", True),
        ("0.10.2", "mm_processor_cache_gb", "0.5", 0.5),
    ],
)
def test_a_text_is_read_as_the_release_reads_it(release, name, text, value):
    assert parse(arguments()[name], text, release) == value


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("scheduling_policy", "random", "fcfs"),
        ("hf_overrides", "[1]", "a JSON object"),
        ("hf_overrides", "a=1", "a JSON object"),
        ("max_num_scheduled_tokens", "many", "16k"),
        ("async_scheduling", "perhaps", "true or false"),
        ("cudagraph_capture_sizes", "[1", "a JSON list"),
    ],
)
def test_a_text_that_the_release_would_refuse_is_refused(name, text, want):
    with pytest.raises(ValueError, match=want):
        parse(arguments()[name], text, "0.32.0")


@pytest.mark.parametrize("name", ["data_parallel_size", "enable_log_requests", "model"])
def test_what_is_decided_elsewhere_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=DECIDED[name].split(";")[0].replace(".", r"\.")):
        parse(arguments()[name], "2", "0.32.0")


def test_every_decided_argument_is_one_of_vllm():
    assert set(DECIDED) - {"disable_log_stats"} <= set(arguments())
