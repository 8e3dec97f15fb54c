"""llama.cpp as a subject, in its own environment: its batch interface through llama-cpp-python.

Continuous batching as its server does it: each call decodes one id of every running request and, in
the same batch, prompts of new ones up to n_batch tokens. Weights in the subject's precision; the
KV cache in float32 for float32, else in float16, which is llama.cpp's own default and as wide as
bfloat16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.offline.loop import Ids, Piece
from benchmarks.offline.make_gguf import make_gguf
from benchmarks.offline.serve import Ready, Setting, serve

BATCH_TOKENS = 2048  # its own default
KV_TYPES = {"float32": llama_cpp.GGML_TYPE_F32, "bfloat16": llama_cpp.GGML_TYPE_F16}


@dataclass(slots=True)
class Running:
    """A request with a place (llama.cpp's sequence id). waits: its ids that are not computed."""

    number: int
    place: int
    waits: Ids
    left: int
    done: int = 0


@dataclass(slots=True)
class LlamaCpp:
    """A step is one `llama_decode`."""

    context: Any
    batch: Any
    vocabulary: int
    free: list[int]
    running: list[Running] = field(default_factory=list)
    queue: list[tuple[int, Ids, int]] = field(default_factory=list)

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self.queue.append((number, prompt, output))

    def step(self) -> Sequence[Piece]:
        while self.queue and self.free:
            number, prompt, output = self.queue.pop(0)
            self.running.append(Running(number, self.free.pop(), list(prompt), output))
        rows = self._fill()
        code = llama_cpp.llama_decode(self.context, self.batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        return [self._take(running, row) for running, row in rows]

    def _fill(self) -> list[tuple[Running, int]]:
        """The batch's tokens; the rows whose logits decide a next id."""
        batch, rows, at = self.batch, [], 0
        # The running ones first: a prompt gets what they leave.
        for running in sorted(self.running, key=lambda one: len(one.waits) > 1):
            part = running.waits[: BATCH_TOKENS - at]
            for offset, token in enumerate(part):
                batch.token[at] = token
                batch.pos[at] = running.done + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = running.place
                batch.logits[at] = 0
                at += 1
            running.done += len(part)
            running.waits = running.waits[len(part) :]
            if part and not running.waits:
                batch.logits[at - 1] = 1
                rows.append((running, at - 1))
        batch.n_tokens = at
        return rows

    def _take(self, running: Running, row: int) -> Piece:
        logits = llama_cpp.llama_get_logits_ith(self.context, row)
        best = int(np.argmax(np.ctypeslib.as_array(logits, shape=(self.vocabulary,))))
        running.waits = [best]
        running.left -= 1
        if running.left == 0:
            self.running.remove(running)
            self.free.append(running.place)
            memory = llama_cpp.llama_get_memory(self.context)
            llama_cpp.llama_memory_seq_rm(memory, running.place, -1, -1)
        return Piece(running.number, (best,), running.left == 0)


def load(setting: Setting) -> Ready:
    file = make_gguf(Path(setting.model))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(file).encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise RuntimeError(f"llama.cpp did not load {file}")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = setting.max_batch * setting.max_tokens
    params.n_seq_max = setting.max_batch
    params.n_batch = BATCH_TOKENS
    params.n_threads = params.n_threads_batch = setting.threads
    params.type_k = params.type_v = KV_TYPES[setting.dtype]
    params.kv_unified = False
    for name, value in setting.options.items():
        setattr(params, name, value)
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise RuntimeError("llama.cpp made no context")
    batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    system = ctypes.cast(llama_cpp.llama_print_system_info(), ctypes.c_char_p).value or b""
    facts = {"llama-cpp-python": version("llama-cpp-python"), "system": system.decode()}
    places = list(range(setting.max_batch))
    return Ready(LlamaCpp(context, batch, vocabulary, places), facts)


if __name__ == "__main__":
    serve(load)
