"""What LMI-Dist's C++ kernels reach on this machine, by operation and number of rows.

    python -m benchmarks.kernels [--quick] [--json FILE] [--threads N]

The layers of a Llama of 100 million parameters (768 wide, 12 heads, 4 KV heads of 64, MLP 2048,
vocabulary 32,000). Linear layers stand beside torch's `linear` and beside oneDNN's prepacked
product, in GFLOP/s, with the share of what the machine can do: of its memory bandwidth for one row,
of its peak for many; both are measured in the same run. The other operations stand beside torch's
operators, in microseconds. Weights and caches are larger than the processor's caches, or taken in
turn from copies that are. A figure is the least of a repeat's calls; tables show the median of the
repeats with the least and the most. The subjects take turns within each repeat.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from benchmarks.figures import machine, shown
from benchmarks.grid import Grid
from lmi.dist.cores import available_cores
from lmi.dist.kernels.base import Heads, Kernels, Linear, Segments
from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kv import LayerCache, LayerShape
from lmi.dist.linear import PackedLinear, packing_works
from lmi.dist.native.library import library_target, set_threads

LAYERS: Final = {
    "query, key, value": (1280, 768),
    "output": (768, 768),
    "gate, up": (4096, 768),
    "down": (768, 2048),
    "head": (32000, 768),
}
HEADS: Final = Heads(query=12, kv=4, size=64, rotary=64, scaling=0.125)
BLOCK: Final = 16
# Copies of a weight that are used in turn take so many bytes: more than any last-level cache here.
COLD_BYTES: Final = 96 << 20
PEAK_SIZE: Final = 1024
BANDWIDTH_FLOATS: Final = 64 << 20
GIGA: Final = 1e9
MICROSECONDS: Final = 1e6
Call = Callable[[], object]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of the linear layers, (sequences, context) of decodes, repeats, seconds per figure."""

    rows: tuple[int, ...]
    decodes: tuple[tuple[int, int], ...]
    repeats: int
    seconds: float


FULL: Final = Plan((1, 8, 32, 512), ((1, 128), (8, 128), (32, 128), (8, 1024), (1, 8192)), 3, 0.3)
QUICK: Final = Plan((1, 32), ((8, 128),), 3, 0.02)


def least(call: Call, seconds: float) -> float:
    """Seconds of the fastest of at least three calls that take `seconds` together."""
    best, until, calls = float("inf"), time.perf_counter() + seconds, 0
    while calls < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def in_turn(calls: list[Call]) -> Call:
    """One call of the list after the other."""
    place = iter(_endless(calls))
    return lambda: next(place)()


def _endless(calls: list[Call]) -> Iterator[Call]:
    while True:
        yield from calls


def measure(subjects: dict[str, Call], plan: Plan) -> dict[str, list[float]]:
    """The least seconds of each subject, per repeat; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(plan.repeats):
        for name, call in subjects.items():
            found[name].append(least(call, plan.seconds))
    return found


def limits(plan: Plan) -> tuple[float, float]:
    """Bytes per second that a reduction reads, and floating-point operations per second of a large
    product, both the best seen."""
    numbers = torch.ones(BANDWIDTH_FLOATS)
    a, b = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
    seconds = measure({"sum": numbers.sum, "product": lambda: a @ b}, plan)
    return numbers.nbytes / min(seconds["sum"]), 2 * PEAK_SIZE**3 / min(seconds["product"])


def linear_subjects(
    kernels: Kernels, shape: tuple[int, int], dtype: torch.dtype, rows: int
) -> dict[str, Call]:
    """A subject per means; each cycles through copies of its weight."""
    outputs, inputs = shape
    weight = torch.randn(outputs, inputs).to(dtype)
    copies = -(-COLD_BYTES // weight.nbytes)
    x = torch.randn(rows, inputs)
    ours = [kernels.linear(weight, None) for _ in range(copies)]
    plain = [weight.clone() for _ in range(copies)]
    narrow = x.to(dtype)
    subjects = {
        "C++": in_turn([bound(layer, x) for layer in ours]),
        "torch": in_turn(
            [bound(lambda w: torch.nn.functional.linear(narrow, w), w) for w in plain]
        ),
    }
    if packing_works(dtype):
        packed = [packed_linear(weight) for _ in range(copies)]
        subjects["oneDNN"] = in_turn([bound(layer, narrow) for layer in packed])
    return subjects


def bound(function: Callable[[Any], object], argument: object) -> Call:
    return lambda: function(argument)


def packed_linear(weight: torch.Tensor) -> PackedLinear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.copy_(weight)
    return PackedLinear(layer)


def low_bit_subjects(kernels: Kernels, shape: tuple[int, int], rows: int) -> dict[str, Call]:
    """The layer at each number of bits, groups of 128."""
    x = torch.randn(rows, shape[1])
    subjects: dict[str, Call] = {}
    for name, bits, activation_bits in (
        ("3 bits", 3, None),
        ("4 bits", 4, None),
        ("8 bits", 8, None),
        ("W8A8", 8, 8),
    ):
        values = torch.randint(0, 1 << bits, shape)
        values = (values - 128).to(torch.int8) if bits == 8 else values.to(torch.uint8)
        groups = 1 if activation_bits else shape[1] // 128
        scales = torch.rand(shape[0], groups).half().float()
        weight = LowBitWeight(bits, values, scales, activation_bits=activation_bits)
        layers: list[Linear] = [kernels.low_bit_linear(weight, None)]
        layers += [
            kernels.low_bit_linear(weight, None) for _ in range(COLD_BYTES // layers[0].nbytes)
        ]
        subjects[name] = in_turn([bound(layer, x) for layer in layers])
    return subjects


def attention_call(
    kernels: Kernels, sequences: int, rows: int, context: int, dtype: torch.dtype
) -> Call:
    """`sequences` of `context` tokens each, of which the last `rows` are computed."""
    blocks = -(-context // BLOCK)
    shape = LayerShape(HEADS.kv, HEADS.size, HEADS.size)
    cache = LayerCache(shape, 1 + sequences * blocks, BLOCK, dtype, torch.device("cpu"))
    cache.keys.normal_()
    cache.values.normal_()
    segments = Segments(
        spans=torch.tensor([[s * rows, rows, context] for s in range(sequences)]).int(),
        tables=(1 + torch.randperm(sequences * blocks)).view(sequences, blocks).int(),
        decode_start=0 if rows == 1 else sequences,
        max_tokens=context,
        longest=rows,
    )
    query = torch.randn(sequences * rows, HEADS.query * HEADS.size)
    return lambda: kernels.attention(query, cache, segments, HEADS)


def other_calls(kernels: Kernels, rows: int, dtype: torch.dtype) -> dict[str, Call]:
    """The operations between the products, on `rows` rows."""
    x, weight, gate_up = torch.randn(rows, 768), torch.ones(768), torch.randn(rows, 4096)
    logits, qkv = torch.randn(min(rows, 32), 32000), torch.randn(rows, 1280)
    delta = torch.full((rows, 768), 1e-6)
    rope, positions = torch.randn(rows, HEADS.rotary), torch.arange(rows)
    shape = LayerShape(HEADS.kv, HEADS.size, HEADS.size)
    cache = LayerCache(shape, 1 + -(-rows // BLOCK), BLOCK, dtype, torch.device("cpu"))
    heat, points = [1.0] * len(logits), [0.5] * len(logits)
    return {
        "residual, norm": lambda: kernels.add_rms_norm(x, delta, weight, 1e-5),
        "rotate and write": lambda: kernels.rotate_and_write(
            qkv, rope, positions, positions, cache, HEADS, None, None, 1e-5
        ),
        "silu, multiply": lambda: kernels.silu_mul(gate_up),
        f"argmax of {len(logits)}": lambda: kernels.argmax(logits),
        f"draw of {len(logits)}": lambda: kernels.draw(logits, heat, points),
    }


def linears(kernels: Kernels, plan: Plan, bandwidth: float, peak: float) -> list[Row]:
    rows: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, shape in LAYERS.items():
            for count in plan.rows:
                if name == "head" and count > 32:  # only wanted rows get there
                    continue
                subjects = linear_subjects(kernels, shape, dtype, count)
                rows += _rates(name, str(dtype)[6:], shape, count, measure(subjects, plan))
    for count in plan.rows:
        seconds = measure(low_bit_subjects(kernels, LAYERS["gate, up"], count), plan)
        for bits, times in seconds.items():
            rows += _rates("gate, up", bits, LAYERS["gate, up"], count, {"C++": times})
    for row in rows:
        size = {"float32": 4, "bfloat16": 2}.get(row["weights"])
        row["of peak"] = max(row["GFLOP/s"]) * GIGA / peak
        if size is not None:
            row["of bandwidth"] = max(row["GFLOP/s"]) * GIGA / 2 / row["rows"] * size / bandwidth
    return rows


def _rates(
    name: str, weights: str, shape: tuple[int, int], count: int, seconds: dict[str, list[float]]
) -> list[Row]:
    work = 2 * count * shape[0] * shape[1] / GIGA
    return [
        {
            "layer": name,
            "weights": weights,
            "rows": count,
            "subject": subject,
            "GFLOP/s": [work / taken for taken in times],
        }
        for subject, times in seconds.items()
    ]


def others(kernels: Kernels, plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        means: dict[str, Kernels] = {"C++": kernels, "torch": PlainKernels(torch.float32)}
        cases: dict[tuple[str, int], dict[str, Call]] = {}
        for sequences, context in plan.decodes:
            cases[f"decode at {context} tokens", sequences] = {
                name: attention_call(mean, sequences, 1, context, dtype)
                for name, mean in means.items()
            }
        cases["prefill", max(plan.rows)] = {
            name: attention_call(mean, 1, max(plan.rows), max(plan.rows), dtype)
            for name, mean in means.items()
        }
        for count in plan.rows:
            calls = {name: other_calls(mean, count, dtype) for name, mean in means.items()}
            for operation in calls["C++"]:
                cases[operation, count] = {name: made[operation] for name, made in calls.items()}
        for (operation, count), subjects in cases.items():
            for subject, times in measure(subjects, plan).items():
                rows.append(
                    {
                        "operation": operation,
                        "cache": str(dtype)[6:],
                        "rows": count,
                        "subject": subject,
                        "microseconds": [taken * MICROSECONDS for taken in times],
                    }
                )
    return rows


def linear_grid(rows: list[Row], bandwidth: float, peak: float) -> Grid:
    table = Grid(
        f"Linear layers, GFLOP/s (memory {bandwidth / GIGA:.1f} GB/s, peak {peak / GIGA:.0f})",
        ["layer", "weights", "rows", "subject", "GFLOP/s", "of bandwidth", "of peak"],
    )
    for row in rows:
        share = row.get("of bandwidth")
        table.row(
            row["layer"],
            row["weights"],
            str(row["rows"]),
            row["subject"],
            shown(row["GFLOP/s"], ".1f"),
            "" if share is None else f"{share:.0%}",
            f"{row['of peak']:.0%}",
        )
    return table


def other_grid(rows: list[Row]) -> Grid:
    table = Grid(
        "Other operations, microseconds", ["operation", "cache", "rows", "subject", "microseconds"]
    )
    for row in rows:
        table.row(
            row["operation"],
            row["cache"],
            str(row["rows"]),
            row["subject"],
            shown(row["microseconds"], ".1f"),
        )
    return table


@torch.inference_mode()
def main() -> int:
    given = arguments()
    torch.manual_seed(0)
    plan = QUICK if given.quick else FULL
    torch.set_num_threads(given.threads)
    set_threads(given.threads)
    kernels = CpuKernels()
    facts = {**machine(), "instruction set": library_target(), "threads": str(given.threads)}
    console = Console(width=120)
    bandwidth, peak = limits(plan)
    result = {
        "facts": facts,
        "bytes per second": bandwidth,
        "peak": peak,
        "linear": linears(kernels, plan, bandwidth, peak),
        "other": others(kernels, plan),
    }
    grids = [linear_grid(result["linear"], bandwidth, peak), other_grid(result["other"])]
    texts = ["\n".join(f"* {name}: {value}" for name, value in facts.items())]
    for grid in grids:
        console.print(grid.rich())
        texts.append(grid.markdown())
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
        given.json.with_suffix(".md").write_text("\n\n".join(texts) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.kernels", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument(
        "--json", type=Path, help="write all figures here, and the tables beside it as .md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
