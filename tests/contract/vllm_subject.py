"""vLLM as a subject of the contract: a tiny Llama in float32, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokenizers import Tokenizer as Rust

from lmi.core import OPTIONAL
from lmi.dist import ProcessEngine
from lmi.dist.foreign import ForeignConfig
from lmi.engines.vllm.load import CORE
from tests.contract.dist_subjects import kill_worker, write_tokenizer
from tests.contract.subject import Subject

# One thread: the tests of a whole machine run beside this.
ENVIRONMENT: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
WORDS: Final = (
    "--dtype=float32",
    "--enforce-eager",
    "--max-model-len=128",
    "--max-num-seqs=4",
    "--max-num-batched-tokens=128",
    "--kv-cache-memory-bytes=64000000",
)


def write_vllm_model(folder: Path) -> Path:
    """The tests' random Llama, but with the smallest heads that vLLM's attention has on the CPU."""
    from transformers import AutoModelForCausalLM

    from tests.support.models import CONFIGS, save_random

    config = CONFIGS["llama"]()
    config.head_dim = 32
    save_random(folder, config, AutoModelForCausalLM)
    write_tokenizer(folder)
    return folder


def vllm_config(folder: Path, *words: str) -> ForeignConfig:
    """What the worker is told of a model of the tests."""
    arguments = {"words": (f"--model={folder}", *WORDS, *words)}
    return ForeignConfig("vLLM", folder, arguments, ENVIRONMENT)


def load_vllm(folder: Path, *words: str) -> ProcessEngine:
    """An engine over a model of the tests."""
    config = vllm_config(folder, *words)
    return ProcessEngine.load_foreign(config, CORE, honours=frozenset(OPTIONAL))


def vllm_subject(folder: Path) -> Subject:
    """The engine as a server has it: in a process of its own."""
    rust = Rust.from_file(str(folder / "tokenizer.json"))
    return Subject(
        name="vllm",
        make=lambda: load_vllm(folder),
        encode=lambda text: tuple(rust.encode(text).ids),
        decode=rust.decode,
        kill=kill_worker,
    )
