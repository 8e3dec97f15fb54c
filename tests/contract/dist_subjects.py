"""LMI-Dist as subjects of the contract: in this process and in one of its own, on a tiny Llama."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmi.core import Engine
from lmi.dist import DistConfig, ProcessEngine
from lmi.dist import Engine as InProcessEngine
from tests.contract.subject import Subject
from tests.support.trained_tokenizers import CORPUS

# The ids that the tiny models' configurations give to these.
SPECIALS = ["<pad>", "<s>", "</s>"]
# Fewer blocks than four full contexts need (32), and chunks shorter than the longest prompts: so
# that requests are preempted and prompts are computed piece by piece.
KV_BLOCKS = 20
PREFILL_TOKENS = 24


def write_model(folder: Path) -> Path:
    """A random Llama and a byte-level tokenizer that fits it."""
    # Here and not above, so that collecting the tests does not import torch.
    from tests.support.models import make_model

    make_model(folder, "llama")
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer for the vocabulary of the tiny models."""
    from tests.support.models import VOCAB

    tokenizer = Rust(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIALS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def kill_worker(engine: Engine) -> None:
    assert isinstance(engine, ProcessEngine)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)


def dist_subject(name: str, folder: Path) -> Subject:
    """name: `in process`, `own process`, or in process with all that may save work (`sharing`) or
    with padded batches (`fallback`)."""
    sharing = name == "sharing"
    rust = Rust.from_file(str(folder / "tokenizer.json"))
    config = DistConfig(
        folder,
        dtype="float32",
        max_model_len=128,
        max_batch=4,
        prefill_tokens=PREFILL_TOKENS,
        kv_blocks=KV_BLOCKS,
        threads=1,
        runtime="generate" if name == "fallback" else "auto",
        prefix_cache=sharing,
        speculative_tokens=4 if sharing else 0,
        speculative_ngram=1,
    )
    in_process = name != "own process"
    return Subject(
        name=name,
        make=partial(InProcessEngine.load if in_process else ProcessEngine.load, config),
        encode=lambda text: tuple(rust.encode(text).ids),
        decode=rust.decode,
        kill=None if in_process else kill_worker,
    )
