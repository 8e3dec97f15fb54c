"""The scores that all engines are compared with: transformers in float32, written to a file.

`python -m benchmarks.quantized.reference MODEL WINDOWS OUT`
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from benchmarks.quantized.fidelity import windows_of


@torch.inference_mode()
def main() -> None:
    folder, windows, out = (Path(part) for part in sys.argv[1:4])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = {
        str(place): model(torch.tensor([ids])).logits[0].contiguous()
        for place, ids in enumerate(windows_of(windows))
    }
    part = out.with_suffix(".part")
    save_file(found, part)
    part.rename(out)


if __name__ == "__main__":
    main()
