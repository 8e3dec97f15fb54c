"""The models that are quantised, their held-back text, and their checkpoints; all kept in a folder.

`5m` is a Llama of about 5 million parameters that learnt the demo's corpus for some minutes, so its
logits have peaks; `100m` is random: its speeds and bytes mean something, its perplexity does not.
`demo` is the model of examples/demo, which needs no training.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import random_llama
from benchmarks.offline.subjects import ROOT

SECONDS: Final = 900.0  # for one step of the preparation
TOOLS: Final = ROOT / "tools"
PLAIN: Final = "plain"

# By name of a checkpoint: flags of `lmi quantize`. GROUP stands for the model's group size.
CHECKPOINTS: Final = {
    "gptq-4": ["--method", "gptq", "--bits", "4"],
    "gptq-3": ["--method", "gptq", "--bits", "3"],
    "gptq-8": ["--method", "gptq", "--bits", "8"],
    "awq-4": ["--method", "awq"],
    "smoothquant": ["--method", "smoothquant"],
    "int8": ["--method", "int8"],
    "fp8": ["--method", "fp8"],
}
GROUPED: Final = ("gptq", "awq")


class PreparationFailed(RuntimeError):
    """A model or checkpoint could not be made. The text is for the table."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A model that is measured. windows, length: of held-back text, and tokens in each."""

    name: str
    windows: int
    length: int
    group_size: int


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("demo", windows=16, length=64, group_size=64),
        Kind("5m", windows=16, length=64, group_size=64),
        Kind("100m", windows=4, length=64, group_size=128),
    )
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model in a folder, with what its rows need. linears: numbers in its decoder's linears."""

    kind: Kind
    folder: Path
    plain: Path
    windows: Path
    reference: Path
    linears: int

    def checkpoint(self, name: str, say: Callable[[str], None]) -> Path:
        """The folder of a checkpoint, made now if it is not there. Raises PreparationFailed."""
        if name == PLAIN:
            return self.plain
        made = self.folder / name
        if not made.exists():
            say(f"{self.kind.name}: making {name}")
            flags = list(CHECKPOINTS[name])
            if flags[1] in GROUPED:
                flags += ["--group-size", str(self.kind.group_size)]
            run(["lmi.cli", "quantize", str(self.plain), *flags, "--output", str(made)])
        return made


def prepare(name: str, home: Path, say: Callable[[str], None]) -> Prepared:
    """A model, its windows and its reference. Raises PreparationFailed."""
    kind, folder = KINDS[name], home / name
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "model"
    if name == "demo":
        plain = ROOT / "examples" / "demo"
    elif not (plain / "tokenizer.json").exists():
        say(f"{name}: making the model")
        if name == "5m":
            run(["benchmarks.quantized.train", str(plain)])
        else:
            plain.mkdir(exist_ok=True)
            random_llama.write_model(plain)
    windows, reference = folder / "windows.json", folder / "reference.safetensors"
    if not windows.exists():
        _write_windows(kind, plain, windows)
    if not reference.exists():
        say(f"{name}: float32 scores of transformers")
        run(["benchmarks.quantized.reference", str(plain), str(windows), str(reference)])
    return Prepared(kind, folder, plain, windows, reference, linear_numbers(plain))


def linear_numbers(model: Path) -> int:
    """Numbers in a Llama's linear layers, without its head."""
    config: dict[str, Any] = json.loads((model / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * head * (heads + config["num_key_value_heads"])
    layer = attention + 3 * hidden * config["intermediate_size"]
    return int(config["num_hidden_layers"]) * layer


def held_back() -> list[str]:
    """Texts of the demo's corpus that no training saw."""
    sys.path.insert(0, str(TOOLS))
    import demo_corpus
    import train_demo_model

    return list(train_demo_model.split(demo_corpus.documents())[1])


def _write_windows(kind: Kind, model: Path, file: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = [number for text in held_back() for number in tokenizer.encode(text).ids]
    step = len(ids) // kind.windows
    found = [ids[at * step : at * step + kind.length] for at in range(kind.windows)]
    file.write_text(json.dumps(found))


def run(module: list[str]) -> None:
    """`python -m` it. Raises PreparationFailed with its last line."""
    command = [sys.executable, "-m", *module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise PreparationFailed(f"{module[0]}: {said[-1]}")
