"""Engine x method x hardware: each works or is refused with what would; the page says the same."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from lmi.config.quantization import CPU, ENGINES, Asked, Hardware, Quantised, judge, quantised
from lmi.config.quantization.methods import BY_NAME, METHODS, VLLM, VLLM_BEFORE
from lmi.config.quantization.table import ROWS, Way, works
from lmi.config.vllm_arguments import arguments, releases
from lmi.dist.config import Quantize
from tools.write_quantization_doc import DOCUMENT, document

GPU = Hardware("gpu", (9, 0))
TURING = Hardware("gpu", (7, 5))
PASCAL = Hardware("gpu", (6, 1))
NEWEST = releases()[-1]


def checkpoint(**settings: object) -> Quantised:
    found = quantised({"quantization_config": settings}, None)
    assert found is not None
    return found


def group(bits: int, kind: str = "int", activations: int | None = None) -> dict[str, object]:
    acts = None if activations is None else {"num_bits": activations, "type": kind}
    return {"weights": {"num_bits": bits, "type": kind}, "input_activations": acts}


def compressed(form: str, *groups: dict[str, object]) -> Quantised:
    named = {f"group_{index}": each for index, each in enumerate(groups)}
    return checkpoint(quant_method="compressed-tensors", format=form, config_groups=named)


GPTQ3 = checkpoint(quant_method="gptq", bits=3)
GPTQ4 = checkpoint(quant_method="gptq", bits=4)
GPTQ8 = checkpoint(quant_method="gptq", bits=8)
AWQ = checkpoint(quant_method="awq", bits=4)
W8A8 = compressed("int-quantized", group(8, activations=8))
FP8 = compressed("float-quantized", group(8, "float", 8))


def works_with(engine: str, found: Quantised, hardware: Hardware | None) -> bool:
    return judge(engine, Asked(None, found, True, hardware, NEWEST)).problem is None


# The names of the reference's own lists, by engine and release, and what each means here.
@pytest.mark.parametrize(
    ("engine", "name", "told"),
    [
        ("deepspeed", "dynamic_int8", "int8"),
        ("deepspeed", "smoothquant", "smoothquant"),
        ("lmi-dist", "bitsandbytes", "bitsandbytes8"),
        ("lmi-dist", "bitsandbytes8", "bitsandbytes8"),
        ("lmi-dist", "gptq", "gptq"),
        ("lmi-dist", "awq", "awq"),
        ("lmi-dist", "AWQ", "awq"),
        ("lmi-dist", "awq_marlin", "awq"),
        ("lmi-dist", "gptq_marlin", "gptq"),
        ("lmi-dist", "fp8", "fp8"),
        ("lmi-dist", "fbgemm_fp8", "fp8"),
        ("lmi-dist", "static_int8", "int8"),
        ("vllm", "awq", "awq"),
        ("vllm", "gptq", "gptq"),
        ("vllm", "fp8", "fp8"),
        ("vllm", "fbgemm_fp8", "fbgemm_fp8"),
        ("vllm", "gptq_marlin", "gptq_marlin"),
        ("vllm", "squeezellm", "squeezellm"),
        ("vllm", "deepspeedfp", "deepspeedfp"),
        ("vllm", "gptq_marlin_24", "gptq_marlin_24"),
        ("vllm", "bitsandbytes8", "bitsandbytes"),
        ("vllm", "experts_int8", "experts_int8"),
        ("python", "bitsandbytes4", "bitsandbytes4"),
        ("python", "bitsandbytes8", "bitsandbytes8"),
        ("python", "bitsandbytes", "bitsandbytes8"),
        ("python", "gptq", "gptq"),
        ("trtllm", "smoothquant", "smoothquant"),
        ("trtllm", "int4_awq", "int4_awq"),
        ("lmi-dist", "none", None),
        ("vllm", "None", None),
    ],
)
def test_a_name_of_any_release_means_what_it_meant(
    engine: str, name: str, told: str | None
) -> None:
    verdict = judge(engine, Asked(name))
    assert verdict.problem is None
    assert verdict.method == told


@pytest.mark.parametrize(
    ("engine", "name", "said"),
    [
        ("lmi-dist", "squeezellm", "quantise the model anew"),
        ("lmi-dist", "marlin", "one GPU kernel"),
        ("lmi-dist", "gptq_marlin_24", "one GPU kernel"),
        ("lmi-dist", "deepspeedfp", "write fp8"),
        ("lmi-dist", "smothquant", "did you mean smoothquant?"),
        ("lmi-dist", "gtpq", "did you mean gptq?"),
        ("vllm", "smoothquant", "LMI-Dist and DeepSpeed can"),
        ("vllm", "dynamic_int8", "LMI-Dist and DeepSpeed can"),
        ("python", "smoothquant", "LMI-Dist and DeepSpeed can"),
    ],
)
def test_what_cannot_be_done_says_why_and_what_works_there(
    engine: str, name: str, said: str
) -> None:
    problem = judge(engine, Asked(name)).problem
    assert problem is not None
    assert said in problem
    assert problem.endswith(works(engine, None))


@pytest.mark.parametrize("name", ["squeezellm", "marlin", "bitsandbytes8", "aqlm"])
def test_what_the_installed_vllm_has_dropped_is_refused_and_an_older_one_keeps_it(
    name: str,
) -> None:
    assert judge("vllm", Asked(name, release=NEWEST)).problem is not None
    assert judge("vllm", Asked(name, release="0.8.4")).problem is None


@pytest.mark.parametrize(
    ("found", "row"),
    [
        (GPTQ3, ("gptq3",)),
        (AWQ, ("awq4",)),
        (checkpoint(quant_method="awq", w_bit=4, version="gemm"), ("awq4",)),
        (checkpoint(quant_method="gptq", bits=4, checkpoint_format="marlin"), ("marlin",)),
        (checkpoint(quant_method="gptq", bits=4, is_marlin_format=True), ("marlin",)),
        (W8A8, ("W8A8",)),
        (compressed("int-quantized", group(8)), ("W8A16-whole",)),
        (compressed("pack-quantized", group(3)), ("W3A16",)),
        (compressed("pack-quantized", group(4), group(8)), ("W4A16", "W8A16")),
        (FP8, ("fp8",)),
        (checkpoint(quant_method="fp8", weight_block_size=[128, 128]), ("fp8",)),
        (checkpoint(quant_method="fbgemm_fp8"), ("fp8",)),
        (checkpoint(quant_method="modelopt", quant_algo="FP8"), ("fp8",)),
        (checkpoint(quant_method="modelopt", quant_algo="NVFP4"), ()),
        (checkpoint(quant_method="bitsandbytes", load_in_4bit=True), ("bitsandbytes4",)),
        (checkpoint(quant_method="bitsandbytes", load_in_8bit=True), ("bitsandbytes8",)),
        (checkpoint(quant_method="mxfp4"), ()),
        (checkpoint(config_groups={"g": group(8, activations=8)}, format="int-quantized"), W8A8),
    ],
)
def test_config_json_says_how_a_checkpoint_is_quantised(
    found: Quantised, row: tuple[str, ...] | Quantised
) -> None:
    assert found.rows == (row.rows if isinstance(row, Quantised) else row)


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("quantize_config.json", '{"bits": 3, "group_size": 128}', ("gptq3",)),
        ("quant_config.json", '{"w_bit": 4, "q_group_size": 128}', ("awq4",)),
        ("hf_quant_config.json", '{"quantization": {"quant_algo": "FP8"}}', ("fp8",)),
    ],
)
def test_what_older_quantisers_wrote_beside_config_json_counts(
    tmp_path: Path, name: str, text: str, rows: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(text)
    found = quantised({"model_type": "llama"}, tmp_path)
    assert found is not None
    assert found.rows == rows


@pytest.mark.parametrize("text", ["{", "[]", "4", ""])
def test_a_damaged_file_beside_config_json_is_the_loaders_business(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "quantize_config.json").write_text(text)
    assert quantised({}, tmp_path) is None


@pytest.mark.parametrize(
    ("engine", "found", "hardware", "able"),
    [
        ("vllm", GPTQ3, CPU, False),
        ("vllm", GPTQ3, GPU, False),
        ("vllm", GPTQ4, CPU, True),
        ("vllm", GPTQ8, CPU, False),
        ("vllm", GPTQ8, GPU, True),
        ("vllm", AWQ, CPU, True),
        ("vllm", AWQ, PASCAL, False),
        ("vllm", W8A8, CPU, True),
        ("vllm", FP8, CPU, False),
        ("vllm", FP8, TURING, True),
        ("python", FP8, CPU, False),
        ("python", FP8, TURING, False),
        ("python", FP8, GPU, True),
        ("python", FP8, Hardware("gpu"), True),
        *(
            (engine, found, hardware, True)
            for engine in ("lmi-dist", "deepspeed")
            for found in (GPTQ3, GPTQ4, GPTQ8, AWQ, W8A8, FP8)
            for hardware in (CPU, PASCAL, GPU, None)
        ),
    ],
)
def test_a_checkpoint_is_judged_by_engine_and_hardware(
    engine: str, found: Quantised, hardware: Hardware | None, able: bool
) -> None:
    assert works_with(engine, found, hardware) is able


def test_a_capability_that_is_too_low_is_named() -> None:
    problem = judge("vllm", Asked(None, AWQ, True, PASCAL, NEWEST)).problem
    assert problem is not None
    assert "compute capability 7.5 or higher" in problem
    assert "vLLM has on a GPU of capability 6.1" in problem


def test_every_scheme_of_a_mixed_checkpoint_must_be_readable() -> None:
    mixed = compressed("pack-quantized", group(4), group(3))
    problem = judge("vllm", Asked(None, mixed, True, CPU, NEWEST)).problem
    assert problem is not None
    assert works_with("lmi-dist", mixed, CPU)


def test_a_scheme_that_no_reader_here_knows_is_refused_before_loading() -> None:
    four_bit_floats = compressed("nvfp4-pack-quantized", group(4, "float", 4))
    problem = judge("lmi-dist", Asked(None, four_bit_floats, True, CPU)).problem
    assert problem is not None
    assert "no reader" in problem
    assert works_with("vllm", four_bit_floats, GPU)  # its own business


def test_layers_of_a_library_cannot_be_divided_among_ranks() -> None:
    alone = Asked("bitsandbytes4", known=True, hardware=CPU)
    assert judge("lmi-dist", alone).needs == ("bitsandbytes",)
    divided = Asked("bitsandbytes4", known=True, hardware=CPU, ranks=2)
    assert "tensor_parallel_degree=1" in (judge("lmi-dist", divided).problem or "")
    assert judge("lmi-dist", Asked("int8", known=True, hardware=CPU, ranks=2)).problem is None


def test_eight_bits_among_ranks_are_our_own_whatever_library_is_named() -> None:
    divided = Asked("bitsandbytes", known=True, hardware=CPU, ranks=4)
    verdict = judge("lmi-dist", divided)
    assert verdict.method == "int8"
    assert verdict.needs == ()
    assert "can't be divided" in verdict.note


def test_vllms_fp8_on_a_cpu_is_the_one_that_it_has_there() -> None:
    at_load = {"known": True, "release": NEWEST}
    assert judge("vllm", Asked("fp8", hardware=CPU, **at_load)).method == "fp8_per_channel"  # type: ignore[arg-type]
    assert judge("vllm", Asked("fp8", hardware=GPU, **at_load)).method == "fp8"  # type: ignore[arg-type]
    unknown_yet = Asked("fp8", hardware=CPU, release=NEWEST)
    assert judge("vllm", unknown_yet).method == "fp8"  # it may be an FP8 checkpoint


def test_vllm_is_told_the_format_of_a_compressed_checkpoint_by_its_own_name() -> None:
    assert judge("vllm", Asked("fp8", FP8, True, GPU, NEWEST)).method == "compressed-tensors"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hardware", [CPU, PASCAL, GPU, None], ids=str)
def test_each_cell_works_or_says_why_and_a_refusal_names_what_works(
    engine: str, hardware: Hardware | None
) -> None:
    for row in ROWS:
        why = row.refused(engine, hardware)
        assert why is None or why
        asked = Asked(row.method, None, row.way is Way.AT_LOAD, hardware, NEWEST)
        if engine == "trtllm":
            continue
        problem = judge(engine, asked).problem
        if row.way is Way.AT_LOAD:
            assert (problem is None) is (why is None), row.key
        if problem is not None:
            assert works(engine, hardware) in problem


def test_what_is_done_at_load_is_what_lmi_dist_has() -> None:
    at_load = {
        row.method for row in ROWS if row.way is Way.AT_LOAD and "lmi-dist" in row.columns
    } - {"smoothquant"}
    assert at_load == set(get_args(Quantize)) - {"none"}


def test_rows_and_methods_know_each_other() -> None:
    assert {row.method for row in ROWS} == {method.name for method in METHODS}
    assert len({row.key for row in ROWS}) == len(ROWS)
    names = [name for method in METHODS for name in (method.name, *method.synonyms)]
    assert len(names) == len(set(names)) == len(BY_NAME)


def test_every_name_that_a_recorded_vllm_listed_is_known() -> None:
    listed = {choice for release in releases() for choice in _choices(release)}
    assert listed <= VLLM | VLLM_BEFORE
    assert not VLLM & VLLM_BEFORE


def _choices(release: str) -> tuple[str, ...]:
    found = arguments(release).get("quantization")
    return () if found is None else found.choices


def test_the_installed_vllms_names_are_ours() -> None:
    found = find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    source = Path(found.origin).parent / "model_executor/layers/quantization/__init__.py"
    assert _literal(source.read_text(), "QuantizationMethods") == VLLM


def _literal(source: str, name: str) -> set[str]:
    """The words of `name = Literal[...]`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}  # type: ignore[misc]
    raise AssertionError(f"vLLM has no {name} there")


def test_the_page_is_what_the_table_gives() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()
