"""What the options say of the weights, what the checkpoint says, and what is made of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, Resolution, resolve
from lmi.config.quantization import CPU, Hardware
from lmi.config.resolution import Fate
from lmi.config.weights import settled
from lmi.core import ConfigError
from tests.unit.config.harness import ALL

NEWEST = "0.32.0"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
GPTQ3 = {"quant_method": "gptq", "bits": 3, "group_size": 128}
GPTQ4 = GPTQ3 | {"bits": 4}
AWQ = {"quant_method": "awq", "bits": 4}


def resolved(
    folder: Path,
    text: str = "",
    quantization: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    hardware: Hardware | None = CPU,
) -> Resolution:
    config = LLAMA if quantization is None else LLAMA | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "serving.properties").write_text(text)
    return resolve(folder, environ or {}, installed=ALL, vllm=NEWEST, hardware=hardware)


def refusal(
    folder: Path,
    text: str,
    quantization: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigErrors) as caught:
        resolved(folder, text, quantization, environ=environ)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    return made


def test_a_checkpoint_that_the_first_engine_cannot_read_goes_to_one_that_can(folder: Path) -> None:
    found = resolved(folder, quantization=GPTQ3)
    assert found.spec.engine == "lmi-dist"
    assert "vllm can't: GPTQ, 3 bits: vLLM reads 4 and 8 bits only" in found.spec.reason
    assert found.weights.checkpoint == "GPTQ, 3 bits, says config.json"
    assert "quantize" not in found.spec.options
    assert resolved(folder, quantization=GPTQ4).spec.engine == "vllm"


def test_an_engine_that_is_named_is_not_replaced_but_told_what_would_run(folder: Path) -> None:
    line = refusal(folder, "option.rolling_batch=vllm", GPTQ3)
    assert line.startswith("quantization_config='GPTQ, 3 bits'")
    assert str(folder / "config.json") in line
    assert "LMI-Dist and DeepSpeed" in line
    assert "vLLM has on a CPU as checkpoint gptq (4)" in line


def test_hardware_decides_with_the_engine(folder: Path) -> None:
    eight = GPTQ3 | {"bits": 8}
    assert resolved(folder, quantization=eight).spec.engine == "lmi-dist"
    gpu = Hardware("gpu", (8, 0))
    assert resolved(folder, quantization=eight, hardware=gpu).spec.engine == "vllm"


def test_a_method_that_is_not_the_checkpoints_names_both(folder: Path) -> None:
    line = refusal(folder, "engine=lmi-dist\noption.quantize=awq", GPTQ4)
    assert line.startswith("option.quantize='awq' (from serving.properties:2)")
    assert "the checkpoint is GPTQ, 4 bits" in line


def test_what_is_quantised_is_not_quantised_again(folder: Path) -> None:
    line = refusal(folder, "engine=lmi-dist\noption.quantize=smoothquant", AWQ)
    assert "quantised already: AWQ" in line
    assert "leave the option out" in line


def test_a_method_of_checkpoints_wants_one(folder: Path) -> None:
    line = refusal(folder, "engine=lmi-dist\noption.quantize=gptq")
    assert "config.json names no quantisation" in line
    assert "lmi quantize" in line


def test_a_method_that_agrees_with_the_checkpoint_is_fine(folder: Path) -> None:
    found = resolved(folder, "engine=lmi-dist\noption.quantize=gptq_marlin", GPTQ4)
    assert found.spec.options["quantize"] == "gptq"


def test_the_engine_that_has_the_method_is_chosen(folder: Path) -> None:
    found = resolved(folder, "option.quantize=smoothquant")
    assert found.spec.engine == "lmi-dist"
    assert found.spec.options["quantize"] == "smoothquant"
    assert "vllm can't: SmoothQuant" in found.spec.reason


def test_a_model_of_the_hub_is_judged_by_the_method_alone(folder: Path) -> None:
    text = "option.model_id=org/model\nengine=lmi-dist\noption.quantize=awq"
    found = resolved(folder, text)
    assert found.spec.options["quantize"] == "awq"
    assert found.weights.checkpoint == ""


def test_none_asks_for_nothing(folder: Path) -> None:
    found = resolved(folder, "engine=lmi-dist\noption.quantize=none")
    assert "quantize" not in found.spec.options
    (setting,) = (each for each in found.settings if each.key == "option.quantize")
    assert setting.fate is Fate.ADVISORY


@pytest.mark.parametrize("engine", ["lmi-dist", "DeepSpeed"])
def test_dtype_int8_says_how_weights_are_held(folder: Path, engine: str) -> None:
    found = resolved(folder, f"engine={engine}\noption.dtype=int8")
    assert found.spec.options["quantize"] == "int8"
    assert found.spec.dtype == "auto"
    (setting,) = (each for each in found.settings if each.key == "option.dtype")
    assert setting.note == "means option.quantize=int8"


def test_dtype_int8_beside_another_method_is_an_error(folder: Path) -> None:
    line = refusal(folder, "engine=lmi-dist\noption.dtype=int8\noption.quantize=fp8")
    assert line.startswith("option.dtype='int8'")
    assert "option.quantize says already" in line


def test_dtype_int8_over_a_quantised_checkpoint_blames_the_dtype(folder: Path) -> None:
    line = refusal(folder, "engine=lmi-dist\noption.dtype=int8", GPTQ4)
    assert line.startswith("option.dtype='int8' (from serving.properties:2)")
    assert "quantised already" in line


SMOOTH = "engine=lmi-dist\noption.quantize=smoothquant\noption.calibration_data={}"


def test_calibration_data_is_a_file_of_the_folder_or_an_absolute_path(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "texts.txt").write_text("one\n")
    (tmp_path / "other.jsonl").write_text('{"text": "one"}\n')
    for named, path in (("texts.txt", folder / "texts.txt"), *[(tmp_path / "other.jsonl",) * 2]):
        found = resolved(folder, SMOOTH.format(named))
        assert found.spec.options["calibration_data"] == str(path.resolve())


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("missing.txt", "a file that is there"),
        (".", "a file that is there"),
        ("../other.txt", "leads out of the model's folder"),
        ("link.txt", "leads out of the model's folder"),
    ],
)
def test_calibration_data_that_is_not_there_or_elsewhere_is_refused(
    folder: Path, tmp_path: Path, named: str, said: str
) -> None:
    (tmp_path / "other.txt").write_text("one\n")
    (folder / "link.txt").symlink_to(tmp_path / "other.txt")
    line = refusal(folder, SMOOTH.format(named))
    assert line.startswith("option.calibration_data=")
    assert said in line


def test_secure_mode_keeps_calibration_data_in_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("one\n")
    secure = {
        "SAGEMAKER_SECURE_MODE": "true",
        "SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_PICKLE_FILES",
    }
    line = refusal(folder, SMOOTH.format(tmp_path / "other.txt"), environ=secure)
    assert "secure mode" in line
    (folder / "texts.txt").write_text("one\n")
    assert resolved(folder, SMOOTH.format("texts.txt"), environ=secure).spec.options


def test_without_a_folder_calibration_data_needs_an_absolute_path() -> None:
    flags = {
        "engine": "lmi-dist",
        "option.model_id": "org/model",
        "option.quantize": "smoothquant",
        "option.calibration_data": "texts.txt",
    }
    with pytest.raises(ConfigErrors, match="expected an absolute path"):
        resolve(None, {}, flags, installed=ALL)


def test_the_fp8_cache_arrives_at_engines_of_ours(folder: Path) -> None:
    for engine in ("lmi-dist", "DeepSpeed"):
        found = resolved(folder, f"engine={engine}\noption.kv_cache_dtype=fp8")
        assert found.spec.options["kv_cache_dtype"] == "fp8"


def test_deepspeed_takes_what_lmi_dist_takes(folder: Path) -> None:
    text = "engine=DeepSpeed\noption.block_size=32\noption.enable_prefix_caching=true"
    options = resolved(folder, text).spec.options
    assert options["block_size"] == 32
    assert options["enable_prefix_caching"] is True
    assert "LMI-Dist" in refusal(folder, "engine=DeepSpeed\noption.enable_lora=true")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("option.triangular_masking=false", "attention is triangular"),
        ("option.training_mp_size=2", "expected 1"),
        ("option.checkpoint=ds_inference_config.json", "pickles"),
        ("option.runtime=native", "models of transformers"),
        ("option.dtype=fp8", "option.quantize"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused_by_name(folder: Path, line: str, said: str) -> None:
    text = refusal(folder, f"engine=DeepSpeed\n{line}")
    assert text.startswith(f"{line.partition('=')[0]}=")
    assert said in text


class TestFetched:
    """A model whose config.json was not at hand while the options were resolved."""

    def spec_and_files(
        self, folder: Path, text: str, quantization: Mapping[str, object] | None
    ) -> tuple[Resolution, Path]:
        found = resolved(folder, f"option.model_id=org/model\n{text}")
        files = folder.parent / "fetched"
        files.mkdir()
        config = LLAMA if quantization is None else LLAMA | {"quantization_config": quantization}
        (files / "config.json").write_text(json.dumps(config))
        return found, files

    def test_it_is_judged_again_before_an_engine_starts(self, folder: Path) -> None:
        found, files = self.spec_and_files(folder, "option.rolling_batch=vllm", GPTQ3)
        with pytest.raises(ConfigError, match="vLLM reads 4 and 8 bits only") as caught:
            settled(found.spec, files, CPU, NEWEST)
        assert caught.value.option == "quantization_config"

    def test_another_method_than_the_options_is_an_error(self, folder: Path) -> None:
        text = "engine=lmi-dist\noption.quantize=awq"
        found, files = self.spec_and_files(folder, text, GPTQ4)
        with pytest.raises(ConfigError, match="the checkpoint is GPTQ, 4 bits") as caught:
            settled(found.spec, files, CPU, NEWEST)
        assert caught.value.option == "option.quantize"

    def test_vllm_is_told_what_it_has_for_a_plain_model(self, folder: Path) -> None:
        text = "option.rolling_batch=vllm\noption.quantize=fp8"
        found, files = self.spec_and_files(folder, text, None)
        assert found.spec.options["quantize"] == "fp8"
        spec = settled(found.spec, files, CPU, NEWEST)
        assert spec.options["quantize"] == "fp8_per_channel"
        assert settled(spec, files, CPU, NEWEST) == spec

    def test_what_agrees_stays_as_it_was(self, folder: Path) -> None:
        found, files = self.spec_and_files(folder, "engine=lmi-dist", GPTQ4)
        assert settled(found.spec, files, CPU, NEWEST) is found.spec
