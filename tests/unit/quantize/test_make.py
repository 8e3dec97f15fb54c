"""Whole checkpoints: what is written is what was measured, for every method; runs go on."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

from lmi.core import BuildError, ModelError, Sampling
from lmi.dist import DistConfig, Engine
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.quantized import reader_of
from lmi.quantize import calibration
from lmi.quantize.grid import Grid
from lmi.quantize.make import HELD_BACK_EVERY
from lmi.quantize.measure import Comparison
from lmi.quantize.report import FILE, Report
from lmi.quantize.settings import ActOrder, Method
from lmi.text import Tokenizer
from tests.support.outlier_models import plant_outliers
from tests.support.serving import DEMO
from tests.unit.quantize.quantizing import Stopped, Watching, made, plain_model, task

pytestmark = pytest.mark.slow

FAMILIES = ["llama", "qwen3", "gpt_neox", "opt", "gemma"]
GPTQ = [
    (4, 32, ActOrder.STATIC, True),
    (4, 64, ActOrder.GROUP, False),
    (3, 32, ActOrder.GROUP, True),
    (3, -1, ActOrder.OFF, False),
    (8, 32, ActOrder.OFF, True),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_model(tmp_path_factory.mktemp("plain"))


def _dense(folder: Path, plain: Path) -> tf.PreTrainedModel:
    """transformers' model of `plain` with the weights that LMI-Dist's readers find in `folder`."""
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    model = tf.AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, attn_implementation="eager"
    )
    state = {}
    with Checkpoint(folder) as checkpoint:
        renamed = {"lm_head.weight": "embed_out.weight"}
        for name, _ in model.named_parameters():
            layer = name.removesuffix(".weight")
            low = None
            if not name.endswith(".bias"):
                low = reader_of(quantization, "config.json").read(checkpoint, layer)
            if low is not None:
                state[name] = low.dense()
            else:
                stored = name if name in checkpoint else renamed[name]
                state[name] = checkpoint.take(stored).float()
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _bytes(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def _held_back(report: Report, plain: Path) -> list[list[int]]:
    """The windows that a run of these settings measures on."""
    settings = report.settings
    wanted = settings.samples * HELD_BACK_EVERY // (HELD_BACK_EVERY - 1) + 1
    tokenizer = Tokenizer.load(plain)
    windows = calibration.windows(tokenizer, calibration.texts(None), wanted, settings.length)
    return windows[HELD_BACK_EVERY - 1 :: HELD_BACK_EVERY]


def _agrees(report: Report, folder: Path, plain: Path) -> None:
    """The report's figures are those of the file, over the windows that were held back."""
    held_back = _held_back(report, plain)
    assert report.held_back == len(held_back)
    model = _dense(folder, plain)
    whole = tf.AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    found = Comparison()
    for ids in held_back:
        row = torch.tensor([ids])
        with torch.no_grad():
            found.add(ids, model(row).logits[0], whole(row).logits[0])
    want = found.result()
    assert report.fidelity.tokens == want.tokens
    assert report.fidelity.relative_error == pytest.approx(want.relative_error, rel=1e-3)
    assert report.fidelity.top1 == pytest.approx(want.top1, abs=1.5 / want.tokens)
    assert report.fidelity.perplexity == pytest.approx(want.perplexity, rel=1e-4)
    assert report.fidelity.reference_perplexity == pytest.approx(
        want.reference_perplexity, rel=1e-4
    )


@pytest.mark.parametrize(("bits", "size", "order", "symmetric"), GPTQ)
def test_a_gptq_checkpoint_is_what_the_report_says(
    bits: int, size: int, order: ActOrder, symmetric: bool, llama: Path, tmp_path: Path
) -> None:
    given = task(
        llama, tmp_path / "out", bits=bits, group_size=size, act_order=order, symmetric=symmetric
    )
    report = made(given)
    _agrees(report, given.output, llama)
    config = json.loads((given.output / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "gptq"
    assert (config["bits"], config["group_size"]) == (bits, size)
    assert (config["desc_act"], config["sym"]) == (order is ActOrder.GROUP, symmetric)
    # The layers' scales and zero points included; embedding and head stay as they are.
    most = {3: 0.6, 4: 0.6, 8: 0.7}[bits]
    assert report.bytes_after < most * report.bytes_before
    assert report.bytes_before == _bytes(llama)
    assert report.bytes_after == _bytes(given.output)
    assert Report.read(given.output) == report
    assert list(tmp_path.iterdir()) == [given.output]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [Method.GPTQ, Method.AWQ])
def test_every_family_loses_little_at_four_bits(
    method: Method, family: str, tmp_path: Path
) -> None:
    plain = plain_model(tmp_path / "plain", family)
    given = task(plain, tmp_path / "out", method)
    watching = Watching()
    report = made(given, watching)
    _agrees(report, given.output, plain)
    assert [layer.name for layer in watching.layers] == [layer.name for layer in report.layers]
    assert all(0 < layer.error < 0.35 for layer in report.layers)
    assert all(0 < error < 0.2 for layer in report.layers for error in layer.linears.values())


@pytest.mark.parametrize(("method", "most"), [(Method.INT8, 0.005), (Method.FP8, 0.02)])
def test_eight_bits_are_rounded_to_nearest(method: Method, most: float, tmp_path: Path) -> None:
    given = task(DEMO, tmp_path / "out", method)
    report = made(given)
    assert 0 < report.fidelity.relative_error < most
    written = load_file(given.output / "model.safetensors")
    plain = load_file(DEMO / "model.safetensors")
    for name, want in plain.items():
        found = written[name].float()
        scale = written.get(f"{name}_scale")
        assert (scale is not None) == name.endswith("_proj.weight"), name
        if scale is None:
            assert torch.equal(found, want.float()), name
        else:
            lost = found * scale.float() - want.float()
            assert float(lost.norm() / want.float().norm()) < 0.03, name


def _nearest(weight: torch.Tensor, bits: int, *, symmetric: bool) -> torch.Tensor:
    """Groups of 32, each over its whole range."""
    grid = Grid(bits, symmetric)
    blocks = weight.float().reshape(-1, 32)
    return grid.rounded(blocks, *grid.fit(blocks)).reshape(weight.shape)


def _lost_by_nearest(report: Report, plain: Path) -> float:
    """The relative logit error with weights that are rounded to nearest instead."""
    model = tf.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()
    held_back, found = _held_back(report, plain), Comparison()
    settings = report.settings
    with torch.no_grad():
        want = [model(torch.tensor([ids])).logits[0] for ids in held_back]
        for module in model.model.modules():
            if isinstance(module, torch.nn.Linear):
                rounded = _nearest(module.weight, settings.bits, symmetric=settings.symmetric)
                module.weight.copy_(rounded)
        for ids, logits in zip(held_back, want, strict=True):
            found.add(ids, model(torch.tensor([ids])).logits[0], logits)
    return found.result().relative_error


@pytest.mark.parametrize("bits", [3, 4])
def test_gptq_of_a_trained_model_loses_less_than_rounding_to_nearest(
    bits: int, tmp_path: Path
) -> None:
    report = made(task(DEMO, tmp_path / "out", bits=bits, samples=24))
    assert report.fidelity.relative_error < 0.8 * _lost_by_nearest(report, DEMO)


def test_awq_makes_up_for_columns_that_meet_large_inputs(tmp_path: Path) -> None:
    """The demo has none: they are planted, as large models have them."""
    plain = plant_outliers(DEMO, tmp_path / "plain")
    report = made(task(plain, tmp_path / "out", Method.AWQ, samples=12))
    assert report.fidelity.relative_error < 0.55 * _lost_by_nearest(report, plain)
    without = made(task(DEMO, tmp_path / "without", Method.AWQ, samples=12))
    assert report.fidelity.relative_error < 1.1 * without.fidelity.relative_error


def test_lmi_dist_serves_what_was_made(llama: Path, tmp_path: Path) -> None:
    given = task(llama, tmp_path / "out", bits=4)
    made(given)
    prompt = (1, 44, 91, 7, 230)
    model = _dense(given.output, llama)
    with torch.no_grad():
        want = model.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None
        )[0, len(prompt) :].tolist()
    sampling = Sampling(max_new_tokens=8, ignore_eos=True)
    with Engine.load(DistConfig(given.output, dtype="float32", threads=1)) as engine:
        (answer,) = engine.generate([prompt], sampling)
    assert [token.id for token in answer.choices[0].tokens] == want


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    llama: Path, tmp_path: Path
) -> None:
    whole, parted = task(llama, tmp_path / "whole"), task(llama, tmp_path / "parted")
    made(whole)
    with pytest.raises(Stopped):
        made(parted, Watching(stop_after=2))
    assert not parted.output.exists()
    second = Watching()
    report = made(parted, second)
    assert [layer.name for layer in second.layers] == ["model.layers.2", "model.layers.3"]
    assert len(report.layers) == 4
    for name in ("model.safetensors", "config.json"):
        assert (whole.output / name).read_bytes() == (parted.output / name).read_bytes()
    assert report.fidelity == made(whole).fidelity
    assert not list(tmp_path.glob(".*"))


def test_a_layer_that_was_half_written_is_made_again(llama: Path, tmp_path: Path) -> None:
    given = task(llama, tmp_path / "out")
    with pytest.raises(Stopped):
        made(given, Watching(stop_after=1))
    (work,) = (path for path in (tmp_path / ".out.quantize").iterdir() if path.is_dir())
    (work / "0001.partial").mkdir()
    (work / "0001.partial" / "model.safetensors").write_bytes(b"cut")
    second = Watching()
    made(given, second)
    assert len(second.layers) == 3


def test_what_other_settings_left_is_said_and_not_used(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        made(task(llama, tmp_path / "out", bits=3), Watching(stop_after=1))
    watching = Watching()
    report = made(task(llama, tmp_path / "out", bits=4), watching)
    assert len(watching.layers) == 4
    (note,) = watching.notes
    assert "of another run" in note
    assert '"bits": 3' in note
    assert report.settings.bits == 4
    left = [path for path in (tmp_path / ".out.quantize").iterdir() if path.is_dir()]
    assert len(left) == 1  # the other run's, for whoever wants to go on with it


def test_the_same_again_is_the_same_report_and_other_settings_are_refused(
    llama: Path, tmp_path: Path
) -> None:
    given = task(llama, tmp_path / "out")
    report = made(given)
    again = Watching()
    assert made(given, again) == report
    assert not again.layers
    assert "there already" in again.notes[0]
    with pytest.raises(BuildError, match="out is there already"):
        made(task(llama, tmp_path / "out", bits=8))


def test_two_runs_do_not_write_the_same_output(llama: Path, tmp_path: Path) -> None:
    root = tmp_path / ".out.quantize"
    root.mkdir()
    with (root / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # so only an exclusive lock is refused
        with pytest.raises(BuildError, match="another run writes"):
            made(task(llama, tmp_path / "out"))


def test_weights_that_changed_are_another_run(llama: Path, tmp_path: Path) -> None:
    model = plain_model(tmp_path / "model")
    with pytest.raises(Stopped):
        made(task(model, tmp_path / "out"), Watching(stop_after=1))
    plain_model(model, seed=5)
    watching = Watching()
    made(task(model, tmp_path / "out"), watching)
    assert len(watching.layers) == 4


def test_sizes_that_a_format_can_not_hold_are_named_with_what_can(
    llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"q_proj has 64 inputs.*--group-size 32 or 64 or -1"):
        made(task(llama, tmp_path / "out", group_size=128))


def test_a_quantised_model_is_refused(llama: Path, tmp_path: Path) -> None:
    given = task(llama, tmp_path / "out")
    made(given)
    with pytest.raises(ModelError, match=r"quantised already \(gptq\)"):
        made(task(given.output, tmp_path / "twice"))


def test_the_report_is_beside_the_weights(llama: Path, tmp_path: Path) -> None:
    given = task(llama, tmp_path / "out", Method.AWQ)
    report = made(given)
    told = json.loads((given.output / FILE).read_text())
    assert told["fidelity"]["tokens"] == report.held_back * 48
    assert set(told["layers"][0]["linears"]) == {f"self_attn.{name}_proj" for name in "qkvo"} | {
        f"mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    text = "\n".join(report.lines())
    assert "model.layers.3" in text
    assert "perplexity" in text
