"""transformers' own quantised loading as a subject: bitsandbytes, torchao, or plain weights."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.offline.engine_generate import Padded
from benchmarks.offline.serve import Ready, Setting, serve
from benchmarks.quantized.fidelity import fidelity
from benchmarks.quantized.memory import held


def load(setting: Setting) -> Ready:
    options: dict[str, Any] = dict(setting.options)
    windows, reference = Path(options.pop("windows")), Path(options.pop("reference"))
    torch.set_num_threads(setting.threads)
    transformers.logging.set_verbosity_error()
    importlib.import_module("transformers.models.llama.modeling_llama")  # counts for no model
    quantisation = _config(options.get("quantise"))
    before, began = held(), time.monotonic()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        setting.model,
        dtype=getattr(torch, setting.dtype),
        attn_implementation="sdpa",
        quantization_config=quantisation,
    )
    model.eval()
    model.generation_config.eos_token_id = None
    facts = {"transformers": transformers.__version__, "torch": torch.__version__}
    facts["load seconds"] = f"{time.monotonic() - began:.3f}"

    @torch.inference_mode()
    def scores(ids: Sequence[int]) -> torch.Tensor:
        rows: torch.Tensor = model(torch.tensor([list(ids)])).logits[0]
        return rows.float()

    facts |= fidelity(scores, windows, reference)
    facts["bytes held"] = str(held() - before)  # some libraries pack at the first step
    facts["bytes counted"] = str(_counted(model))
    return Ready(Padded(model, setting.max_batch), facts)


def _config(name: str | None) -> Any:
    if name == "bitsandbytes4":
        return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    if name == "bitsandbytes8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    if name == "torchao_int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig(version=2))
    return None


def _counted(model: Any) -> int:
    """Bytes of the decoder layers' matrices, however a library stores them."""
    total = 0
    for name, module in model.named_modules():
        if ".layers." not in name or not hasattr(module, "in_features"):
            continue
        for parameter in module.parameters():
            flat = getattr(parameter, "__tensor_flatten__", None)
            parts = [getattr(parameter, part) for part in flat()[0]] if flat else [parameter]
            total += sum([part.nbytes for part in parts])
    return total


if __name__ == "__main__":
    serve(load)
