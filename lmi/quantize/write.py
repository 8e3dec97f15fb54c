"""The finished layers and the rest of a model as a checkpoint that any engine reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.quantize.shards import ShardWriter
from lmi.quantize.skeleton import Skeleton
from lmi.quantize.work import Work

# What a model's folder holds beside its weights: configuration, tokenizer, templates, own code,
# licence.
_BESIDE: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")
_NAMED: Final = ("LICENSE", "NOTICE")
_CONFIG: Final = "config.json"
_INDEX: Final = ".safetensors.index.json"


def write_checkpoint(
    model: Path,
    checkpoint: Checkpoint,
    skeleton: Skeleton,
    work: Work,
    quantization: dict[str, Any],
) -> int:
    """Write into `work`'s folder for the checkpoint; the bytes of its weights' files.

    Tensors that were not rounded are copied as they are, in their own dtype.
    """
    folder = work.new_checkpoint_folder()
    writer = ShardWriter(folder)
    replaced: set[str] = set()
    for index in range(skeleton.layers):
        with Checkpoint(work.layer_folder(index)) as layer:
            for name in sorted(layer.names()):
                writer.add(name, layer.take(name))
                module = name.rpartition(".")[0]
                replaced |= {name, f"{module}.weight"}
    for name in sorted(set(checkpoint.names()) - replaced):
        writer.add(name, checkpoint.take(name))
    writer.finish()
    _copy_beside(model, folder)
    config = json.loads((model / _CONFIG).read_text())
    config["quantization_config"] = quantization
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _copy_beside(model: Path, folder: Path) -> None:
    for path in sorted(model.iterdir()):
        wanted = path.suffix in _BESIDE or path.name.startswith(_NAMED)
        if path.is_file() and wanted and not path.name.endswith(_INDEX):
            shutil.copyfile(path, folder / path.name)
