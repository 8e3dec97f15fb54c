"""Every name that scripts import is there, wherever `djl_python` stands."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HANDLERS = Path(__file__).parents[3] / "handlers"

# Modules that import neither torch nor transformers.
LIGHT: dict[str, str] = {
    "djl_python": "Input Output PairList Session SessionManager __version__",
    "djl_python.inputs": "Input",
    "djl_python.outputs": "Output",
    "djl_python.pair_list": "PairList",
    "djl_python.np_util": "to_nd_list from_nd_list",
    "djl_python.encode_decode": "decode encode decode_csv encode_csv",
    "djl_python.input_parser": "input_formatter prediction_handler init_handler",
    "djl_python.output_formatter": "output_formatter TextGenerationOutput RequestOutput",
    "djl_python.request": "Request",
    "djl_python.request_io": (
        "Token Sequence RequestInput TextInput RequestOutput TextGenerationOutput"
    ),
    "djl_python.rolling_batch.rolling_batch": (
        "RollingBatch stop_on_any_exception filter_unused_generation_params"
    ),
    "djl_python.async_utils": (
        "create_non_stream_output create_stream_chunk_output handle_streaming_response"
    ),
    "djl_python.service_loader": (
        "load_model_service ModelService has_function_in_module get_annotated_function"
    ),
    "djl_python.session_manager": "Session SessionManager",
    "djl_python.huggingface": (
        "HuggingFaceService _service handle register_adapter update_adapter unregister_adapter"
    ),
    "djl_python.sklearn_handler": "SklearnHandler handle service",
    "djl_python.xgboost_handler": "XGBoostHandler handle service",
    "djl_python.lmi_vllm.vllm_async_service": "VLLMHandler handle service",
    "djl_python.lmi_trtllm.trtllm_async_service": "TensorRTLLMHandler handle",
    "djl_python.tensorrt_llm": "TRTLLMService handle",
    "djl_python.deepspeed": "DeepSpeedService handle partition",
    "djl_python.utils": (
        "rolling_batch_inference is_streaming is_best_of is_beam_search is_multiple_sequences "
        "find_model_file profile_objects"
    ),
    "djl_python.test_model": (
        "create_request create_json_request create_text_request create_numpy_request "
        "create_npz_request create_3p_request create_concurrent_batch_request TestHandler "
        "extract_output_as_bytes extract_output_as_input extract_output_as_npz "
        "extract_output_as_numpy extract_output_as_string main"
    ),
}
HEAVY = {"djl_python.streaming_utils": "HFStreamer StreamingUtils"}
REFUSED = (
    "transformers_neuronx",
    "optimum_neuron",
    "stable_diffusion_inf2",
    "stable-diffusion",
    "fastertransformer",
    "sagemaker",
    "seq_scheduler",
)


def has(module: str, names: str) -> None:
    found = importlib.import_module(module)
    for name in names.split():
        assert hasattr(found, name), f"{module} has no {name}"
    assert set(getattr(found, "__all__", ())) <= set(dir(found)) | set(names.split())


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_has_its_names(module: str) -> None:
    has(module, LIGHT[module])


@pytest.mark.slow
@pytest.mark.parametrize("module", HEAVY)
def test_a_module_over_a_large_library_has_its_names(module: str) -> None:
    has(module, HEAVY[module])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(ImportError, match=rf"djl_python\.{name} is refused: \w+"):
        importlib.import_module(f"djl_python.{name}")


def test_no_module_is_left_out_of_these_lists() -> None:
    package = HANDLERS / "djl_python"
    files = {
        ".".join(file.relative_to(HANDLERS).with_suffix("").parts)
        for file in package.rglob("*.py")
        if file.name != "__init__.py"
    }
    named = {*LIGHT, *HEAVY, *(f"djl_python.{name}" for name in REFUSED)}
    assert files - named == set()
    folders = {file.parent.name for file in package.rglob("__init__.py")}
    assert folders == {"djl_python", "rolling_batch", "lmi_vllm", "lmi_trtllm", "seq_scheduler"}


def test_a_module_that_does_not_exist_is_missing_as_any_other() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("djl_python.nonsense")
    with pytest.raises(AttributeError, match="nonsense"):
        importlib.import_module("djl_python").nonsense  # noqa: B018


SMALL = """
import sys
import djl_python
from djl_python import Input, Output
from djl_python.input_parser import input_formatter
from djl_python.output_formatter import output_formatter
from djl_python.async_utils import create_non_stream_output
from djl_python.encode_decode import decode
heavy = {"numpy", "torch", "transformers", "PIL", "vllm", "sklearn"} & set(sys.modules)
print(djl_python.__file__, sorted(heavy))
"""


def run(code: str, *, folder: Path, **environ: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    found = subprocess.run(
        command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.slow
def test_the_common_names_load_no_large_library(tmp_path: Path) -> None:
    assert run(SMALL, folder=tmp_path).split()[1:] == ["[]"]


@pytest.mark.slow
def test_the_package_works_from_the_model_servers_cache(tmp_path: Path) -> None:
    cache = tmp_path / "python" / "0.36.0"
    shutil.copytree(HANDLERS, cache, ignore=shutil.ignore_patterns("__pycache__"))
    found = run(SMALL, folder=tmp_path, PYTHONPATH=str(cache))
    assert found.startswith(str(cache / "djl_python"))
