"""Tokens per second on a GPU by concurrency, and paged decode attention V1 against V2.

    python -m benchmarks.gpu [--quick] [--json FILE] [--repeats 3] [--vllm PYTHON]

A Llama of 1.2 billion random parameters in bfloat16 (a small one with --quick), 256 tokens in and
128 out, all requests sent at once. Each engine has a process of its own, one after the other within
each repeat, and warms up at every concurrency before it is timed. vLLM takes part with the
interpreter of an environment that has it. Without a CUDA device: says so and exits 2.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import machine, shown
from benchmarks.offline.loop import Stepper
from benchmarks.offline.weights import SHAPES, Shape, write

LARGE: Final = Shape("llama-1b", "llama", 128_256, 2048, 8192, 16, 32, 8, 8192)
INPUTS, OUTPUTS = 256, 128  # tokens
CONCURRENCY: Final = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS: Final = (128, 512, 1024, 2048, 4096, 8192)
BATCHES: Final = (1, 4, 16, 64)
BLOCK: Final = 16  # tokens of KV
SUBJECT_SECONDS: Final = 1800.0  # a time-out: compiling, loading and all rounds of one engine


def lmi(folder: Path, *, graphs: bool) -> Stepper:
    """LMI-Dist, alone on the device."""
    from benchmarks.offline.engine_lmi import LmiDist
    from lmi.dist import DistConfig, EngineCore

    config = DistConfig(
        folder, dtype="bfloat16", device="cuda", max_batch=max(CONCURRENCY), cuda_graphs=graphs,
        max_model_len=INPUTS + OUTPUTS + BLOCK, prefill_tokens=2048,
    )  # fmt: skip
    core = EngineCore(config)
    print(dict(core.info.details), file=sys.stderr)
    return LmiDist(core)


def _transformers(folder: Path) -> Any:
    import torch
    import transformers

    torch.set_default_device("cuda")
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.generation_config.eos_token_id = None
    return model.cuda().eval()


def padded(folder: Path) -> Stepper:
    """`generate` on one batch of all requests; equal lengths need no padding: its best case."""
    from benchmarks.offline.engine_generate import Padded

    return Padded(_transformers(folder), max(CONCURRENCY))


def continuous(folder: Path) -> Stepper:
    """transformers' own continuous batching."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    from benchmarks.offline.engine_continuous import Continuous

    manager = _transformers(folder).init_continuous_batching(
        GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        ContinuousBatchingConfig(allow_block_sharing=False, auto_switch_to_flash=False),
    )
    manager.start()
    return Continuous(manager)


def vllm(folder: Path) -> Stepper:
    """vLLM as it comes: compiled, with CUDA graphs."""
    from vllm import LLM

    from benchmarks.offline.engine_vllm import Vllm

    llm = LLM(
        str(folder), dtype="bfloat16", skip_tokenizer_init=True, enable_prefix_caching=False,
        max_model_len=INPUTS + OUTPUTS + BLOCK, max_num_seqs=max(CONCURRENCY),
    )  # fmt: skip
    return Vllm(llm.llm_engine)


SUBJECTS: Final[dict[str, Callable[[Path], Stepper]]] = {
    "LMI-Dist": lambda folder: lmi(folder, graphs=True),
    "LMI-Dist without CUDA graphs": lambda folder: lmi(folder, graphs=False),
    "transformers' continuous batching": continuous,
    "transformers' generate": padded,
    "vLLM": vllm,
}


def timed_round(engine: Stepper, concurrency: int, vocabulary: int, seed: int) -> float:
    """Tokens per second of `concurrency` requests that are sent at once."""
    rng = random.Random(seed)
    began = time.perf_counter()
    for number in range(concurrency):
        engine.add(number, [rng.randrange(3, vocabulary) for _ in range(INPUTS)], OUTPUTS)
    tokens, left = 0, concurrency
    while left:
        for piece in engine.step():
            tokens += len(piece.ids)
            left -= piece.over
    seconds = time.perf_counter() - began
    if tokens != concurrency * OUTPUTS:
        raise RuntimeError(f"{tokens} tokens came, expected {concurrency * OUTPUTS}")
    return tokens / seconds


def subject_main(name: str, folder: Path, levels: list[int]) -> None:
    """The life of an engine's process: one JSON line on the real standard output."""
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    engine = SUBJECTS[name](folder)
    found = {}
    for level in levels:
        timed_round(engine, level, vocabulary, seed=1)
        found[str(level)] = timed_round(engine, level, vocabulary, seed=2)
    print("\n" + json.dumps(found), flush=True)


def measure(name: str, python: str, folder: Path, levels: list[int]) -> dict[str, float]:
    """Run one engine in its own process; its tokens per second by concurrency."""
    command = [python, "-m", "benchmarks.gpu", "--subject", name, "--model", str(folder)]
    command += ["--levels", json.dumps(levels)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=SUBJECT_SECONDS
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def attention_row(batch: int, context: int) -> dict[str, Any]:
    """Microseconds of one layer's decode attention (32 heads, 8 KV heads, size 128, bfloat16)."""
    import torch
    from triton.testing import do_bench

    from lmi.dist.kernels.base import Heads
    from lmi.dist.kernels.triton.decode import PARTITION, choose_splits, decode_attention
    from lmi.dist.kv import LayerCache, LayerShape

    device, heads = torch.device("cuda"), Heads(32, 8, 128, 128, 128**-0.5)
    width = context // BLOCK
    shape = LayerShape(heads.kv, heads.size, heads.size)
    cache = LayerCache(shape, batch * width + 1, BLOCK, torch.bfloat16, device)
    tables = (torch.randperm(batch * width, device=device) + 1).int().view(batch, width)
    spans = torch.tensor([[row, 1, context] for row in range(batch)], device=device).int()
    query = torch.randn((batch, heads.query * heads.size), device=device).bfloat16()
    out = torch.empty_like(query)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    chosen = choose_splits(batch, heads.kv, context, processors)
    row = {"batch": batch, "context": context, "chosen": chosen, "bytes": 2 * cache.keys.nbytes}
    for name, splits in (("V1", 1), ("V2", max(2, chosen))):
        if splits <= -(-context // PARTITION):
            attend = partial(
                decode_attention, query, out, cache, spans, tables, heads,
                longest=1, max_tokens=context, splits=splits,
            )  # fmt: skip
            row[name] = 1e3 * do_bench(attend, return_mode="median")
    return row


def throughput_table(repeats: list[dict[str, dict[str, float]]]) -> Iterator[str]:
    """Markdown: tokens/s, an engine per line, a concurrency per column."""
    levels = list(next(iter(repeats[0].values())))
    yield "| tokens/s at concurrency | " + " | ".join(levels) + " |"
    yield "|---" * (1 + len(levels)) + "|"
    for name in repeats[0]:
        cells = (shown([repeat[name][level] for repeat in repeats]) for level in levels)
        yield f"| {name} | " + " | ".join(cells) + " |"


def attention_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: microseconds, and what share of the faster one's time is the cache's bytes."""
    yield "| batch | context | V1, µs | V2, µs | taken | GB/s of the faster |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        times = [row[name] for name in ("V1", "V2") if name in row]
        cells = (f"{row[name]:.1f}" if name in row else "" for name in ("V1", "V2"))
        taken = "V1" if row["chosen"] == 1 else f"V2, {row['chosen']} programs"
        speed = row["bytes"] / min(times) / 1e3
        yield f"| {row['batch']} | {row['context']} | {' | '.join(cells)} | {taken} | {speed:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small model, two concurrencies")
    parser.add_argument("--json", type=Path, help="write every figure of every repeat here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment with vLLM for GPUs")
    for hidden in ("--subject", "--model", "--levels"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.subject:
        subject_main(chosen.subject, Path(chosen.model), json.loads(chosen.levels))
        return 0
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device here: there is nothing to measure", file=sys.stderr)
        return 2
    pythons = {name: sys.executable for name in SUBJECTS if name != "vLLM"}
    if chosen.vllm:
        pythons["vLLM"] = chosen.vllm
    levels = list(CONCURRENCY[::4] if chosen.quick else CONCURRENCY)
    with tempfile.TemporaryDirectory() as home:
        shape = SHAPES["llama-tiny"] if chosen.quick else LARGE
        folder = write(shape, "bfloat16", Path(home))
        repeats = [
            {name: measure(name, python, folder, levels) for name, python in pythons.items()}
            for _ in range(1 if chosen.quick else chosen.repeats)
        ]
    few = 3 if chosen.quick else 1
    attention = [
        attention_row(batch, context) for batch in BATCHES[::few] for context in CONTEXTS[::few]
    ]
    print("\n".join([*throughput_table(repeats), "", *attention_table(attention)]))
    print("\nAll-reduce needs two GPUs: not measured here.")
    if chosen.json is not None:
        facts = {
            "machine": machine(),
            "gpu": torch.cuda.get_device_name(),
            "shape": shape.name,
            "tokens": {"in": INPUTS, "out": OUTPUTS},
            "repeats": repeats,
            "attention": attention,
        }
        chosen.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
