"""Checkpoints that gptqmodel makes and reads, beside what LMI-Dist reads in them. A process of its
own: the library changes loggers and warnings, and writes logs into its working folder.

    python -m tests.support.gptqmodel_files FOLDER NAME...

writes {NAME: {"layers", "difference", "logits"}} to FOLDER/found.json: how many layers were
compared, the largest difference of a weight, the relative error of the logits.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

KINDS: Final[dict[str, dict[str, Any]]] = {
    "gptq 3 act-order": {"bits": 3, "group_size": 32, "desc_act": True},
    "gptq 8 asymmetric": {"bits": 8, "group_size": 128, "sym": False},
    "gptq 4 one group": {"bits": 4, "group_size": -1, "act_group_aware": False},
    "awq 4": {"bits": 4, "group_size": 32, "method": "awq", "format": "gemm"},
}
PROBE: Final = tuple((7 * i + 3) % 500 for i in range(8))


def main(folder: Path, names: list[str]) -> None:
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # it takes no fewer
    import torch
    import transformers as tf

    from tests.support.models import VOCAB
    from tests.support.trained_tokenizers import add_bos, byte_level

    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = folder / "plain"
    config = tf.LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    tf.LlamaForCausalLM(config).save_pretrained(source)
    tokenizer = add_bos(byte_level(vocab_size=VOCAB - 8))
    (source / "tokenizer.json").write_text(tokenizer.to_str())
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    found = {}
    for number, name in enumerate(names):
        made = folder / str(number)
        _make(source, made, KINDS[name])
        found[name] = _compare(made, "awq" in name)
    (folder / "found.json").write_text(json.dumps(found))


def _make(source: Path, made: Path, settings: dict[str, Any]) -> None:
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 500, (64,), generator=generator).tolist() for _ in range(8)]
    texts = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    model = GPTQModel.load(str(source), QuantizeConfig(**settings), device="cpu")
    further = {"backend": BACKEND.AWQ_TORCH} if "method" in settings else {}
    model.quantize(texts, batch_size=1, **further)
    model.save(str(made))


def _compare(made: Path, awq: bool) -> dict[str, float]:
    import torch
    from gptqmodel import BACKEND, GPTQModel

    from lmi.dist import DistConfig
    from lmi.dist.decoder.checkpoint import Checkpoint
    from lmi.dist.decoder.config import read_json
    from lmi.dist.decoder.quantization import quantization_of
    from lmi.dist.hosted import load_hosted
    from lmi.dist.quantized.choose import choose_reader
    from lmi.dist.quantized.layer import quantised_layers

    backend = BACKEND.AWQ_TORCH if awq else BACKEND.TORCH
    theirs = GPTQModel.load(str(made), device="cpu", backend=backend, dtype=torch.float16)
    config = DistConfig(made, dtype="float32", device="cpu", runtime="transformers", threads=1)
    with torch.inference_mode():
        wanted = theirs.model(torch.tensor([PROBE])).logits[0].float()
        ours = load_hosted(config, _nobody, None, "compared")._loaded.model
        logits = ours(torch.tensor([PROBE]), use_cache=False).logits[0].float()
    layers, difference = 0, 0.0
    reader = choose_reader(config, quantization_of(made, read_json(made / "config.json")))
    with Checkpoint(made) as checkpoint:
        for name in quantised_layers(checkpoint):
            weight = reader.read(checkpoint, name)
            module = theirs.model.get_submodule(name)
            if hasattr(module, "dequantize_weight"):  # (in, out), in float16
                meant = module.dequantize_weight().half().T.float()
                found = weight.dense().half().float()
                difference = max(difference, (meant - found).abs().amax().item())
            layers += 1
    error = ((logits - wanted).norm() / wanted.norm()).item()
    return {"layers": layers, "difference": difference, "logits": error}


def _nobody(phase: str, done: int, total: int) -> None: ...


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
