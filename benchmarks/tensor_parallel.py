"""One model on two ranks against the same model on one, a thread each.

    python -m benchmarks.tensor_parallel [--quick] [--engine deepspeed] [--json FILE]
        [--dtype float32] [--requests 1,8,16,32] [--repeats 3]

Subjects: one rank; two ranks that exchange over shared memory; two over gloo; of DeepSpeed's, two
whose sums its own operator carries, too, which is compiled at first use. All are loaded, each
rank on a core of its own with one thread, and take turns within each repeat; those that rest sleep.
Tokens per second are those of a whole batch of equal requests, prefill and all. A decode step's
time is the median of the steps in which every request decodes. The share of the collectives is
rank 0's time in them, waiting for the other rank included, over the time of all steps; DeepSpeed's
operator does not tell its own. --json FILE keeps every figure, with the table beside it as
Markdown.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.figures import machine, shown
from benchmarks.offline.weights import SHAPES, write

FIRST_ID: Final = 3  # below are the special ones
BLOCK: Final = 16
# The followers of a subject whose turn it is not hear nothing for as long as the others need.
REST_SECONDS: Final = 3600.0
MILLISECONDS: Final = 1000.0

Row = dict[str, Any]


class Subject(NamedTuple):
    """What is compared. custom: whether the ranks use our own collectives. operator: whether
    DeepSpeed's operator carries the sums."""

    name: str
    ranks: int
    custom: bool
    operator: bool = False


SUBJECTS: Final = (
    Subject("one rank", 1, True),
    Subject("two ranks, shared memory", 2, True),
    Subject("two ranks, gloo", 2, False),
)
OPERATOR: Final = Subject("two ranks, DeepSpeed's operator", 2, True, operator=True)
ENGINES: Final = {"lmi-dist": SUBJECTS, "deepspeed": (*SUBJECTS, OPERATOR)}


class Load(NamedTuple):
    """A batch of equal requests: tokens in, tokens out, requests at once."""

    inputs: int
    outputs: int
    concurrency: int


def run_rank(
    subject: Subject, engine: str, rank: int, meeting: str, config: Any, front: Connection
) -> None:
    """The life of one rank: serve the loads that come, as the leader or a follower."""
    from lmi.dist.cores import settle
    from lmi.dist.place import Place

    # Also alone: two cores for one thread would let it move between them.
    place = Place(rank, 2, f"file://{meeting}")
    os.environ.update(settle(place, 1, os.environ))

    import torch

    from lmi.dist.collectives.choose import choose
    from lmi.dist.core import EngineCore
    from lmi.dist.engine import silent
    from lmi.dist.parallel.following import Follower
    from lmi.dist.parallel.rank import core_of
    from lmi.dist.runtimes import load_model

    spent = None if subject.ranks == 1 else choose(config, place, torch.device("cpu"))
    load = deepspeed_loader(subject, config, place, spent) if engine == "deepspeed" else load_model
    core: Any
    if spent is None:
        core = EngineCore(config, load=load)
    else:
        core = core_of(config, silent, spent, load=load)
    if isinstance(core, Follower):
        core.run()
        core.close()
        return
    front.send("one rank" if spent is None else spent.name)
    while (load := front.recv()) is not None:
        front.send(measured(core, spent, load))
    core.close()


def deepspeed_loader(subject: Subject, config: Any, place: Any, collective: Any) -> Any:
    """What loads a rank's share of the model by DeepSpeed."""
    import torch

    from lmi.engines.deepspeed.core import settle
    from lmi.engines.deepspeed.settings import Settings

    device = torch.device("cpu")
    own = Settings(sums="deepspeed" if subject.operator else "lmi-dist")
    settle(place, device, os.environ)
    from lmi.engines.deepspeed.rank import loader
    from lmi.engines.deepspeed.rebuild import DeepSpeed
    from lmi.engines.deepspeed.sums import join

    if collective is None:
        return loader(DeepSpeed(config, own, device))
    sums = join(collective, place, device, own.sums, REST_SECONDS)
    return loader(DeepSpeed(config, own, device, collective, sums))


def measured(core: Any, collective: Any, load: Load) -> Row:
    """Serve one batch to its end."""
    from lmi.dist.messages import CoreRequest

    rng = random.Random(str(load))
    vocabulary = core.info.vocab_size
    for number in range(load.concurrency):
        prompt = tuple(rng.randrange(FIRST_ID, vocabulary) for _ in range(load.inputs))
        core.add(CoreRequest(number, prompt, max_new_tokens=load.outputs, ignore_eos=True))
    exchanging = 0.0 if collective is None else collective.seconds
    steps: list[tuple[int, float]] = []
    ids: list[int] = []
    began = time.perf_counter()
    while core.has_work:
        step = time.perf_counter()
        events = core.step()
        steps.append((len(events), time.perf_counter() - step))
        ids += [event.token for event in sorted(events, key=lambda event: event.request_id)]
    seconds = time.perf_counter() - began
    if collective is not None:
        exchanging = collective.seconds - exchanging
    decoding = [spent for tokens, spent in steps[1:] if tokens == load.concurrency]
    return {
        "tokens/s": len(ids) / seconds,
        "decode step, ms": statistics.median(decoding) * MILLISECONDS,
        "share of collectives": exchanging / seconds,
        "first ids": ids[: load.concurrency],
    }


class Running:
    """The processes of one subject."""

    def __init__(self, subject: Subject, engine: str, config: Any, folder: Path) -> None:
        from dataclasses import replace

        self.subject = subject
        own = replace(
            config,
            tensor_parallel=subject.ranks,
            custom_all_reduce=subject.custom,
            collective_timeout=REST_SECONDS,
        )
        meeting = str(folder / subject.name.replace(" ", "-"))
        spawn = multiprocessing.get_context("spawn")
        self._link, theirs = spawn.Pipe()
        self._processes: list[BaseProcess] = []
        for rank in range(subject.ranks):
            arguments = (subject, engine, rank, meeting, own, theirs)
            process = spawn.Process(target=run_rank, args=arguments, daemon=True)
            process.start()
            self._processes.append(process)
        theirs.close()
        self.means = self._link.recv()

    def serve(self, load: Load) -> Row:
        """Have a batch measured. Raises EOFError when a rank has failed."""
        self._link.send(load)
        row: Row = self._link.recv()
        return {"subject": self.subject.name, **load._asdict(), **row}

    def close(self) -> None:
        """End the ranks."""
        self._link.send(None)
        for process in self._processes:
            process.join()


def table(rows: list[Row], subjects: Sequence[Subject]) -> Iterator[str]:
    """Markdown: a line per load and subject; medians with the least and the most."""
    yield "| in / out | requests | subject | tokens/s | decode step, ms | in collectives, % |"
    yield "|---|---|---|---|---|---|"
    loads = list(dict.fromkeys((r["inputs"], r["outputs"], r["concurrency"]) for r in rows))
    for load in loads:
        for subject in subjects:
            own = chosen(rows, load, subject)
            share = [100 * row["share of collectives"] for row in own]
            cells = (
                f"{load[0]} / {load[1]}",
                str(load[2]),
                subject.name,
                shown([row["tokens/s"] for row in own], ",.1f"),
                shown([row["decode step, ms"] for row in own], ",.2f"),
                shown(share, ".1f") if subject.ranks > 1 and not subject.operator else "–",
            )
            yield f"| {' | '.join(cells)} |"
    yield ""
    for load in loads:
        one, own, *others = (
            statistics.median([row["decode step, ms"] for row in chosen(rows, load, subject)])
            for subject in subjects
        )
        than = [
            f"{step / own:.2f} times as fast as with {subject.name}"
            for step, subject in zip((one, *others), (subjects[0], *subjects[2:]), strict=True)
        ]
        yield (
            f"* {load[0]} / {load[1]}, {load[2]} requests: a decode step over shared memory is "
            f"{', '.join(than)}"
        )


def chosen(rows: list[Row], load: tuple[int, int, int], subject: Subject) -> list[Row]:
    """One subject's rows for one load."""
    return [
        row
        for row in rows
        if (row["inputs"], row["outputs"], row["concurrency"]) == load
        and row["subject"] == subject.name
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: a small model")
    parser.add_argument("--engine", choices=ENGINES, default="lmi-dist")
    parser.add_argument("--json", type=Path, help="write every figure of every repeat here")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--requests", default="1,8", help="at once (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from lmi.dist.config import DistConfig

    shape = SHAPES["llama-tiny" if options.quick else "llama-100m"]
    outputs = 16 if options.quick else 64
    loads = [Load(64, outputs, int(count)) for count in options.requests.split(",")]
    subjects = ENGINES[options.engine]
    most = max(load.concurrency for load in loads)
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = DistConfig(
            write(shape, options.dtype, folder),
            dtype=options.dtype,
            device="cpu",
            max_batch=most,
            max_model_len=64 + outputs,
            block_size=BLOCK,
            kv_blocks=most * -(-(64 + outputs) // BLOCK),
            prefill_tokens=64 * most,
            threads=1,
            runtime="transformers" if options.engine == "deepspeed" else "auto",
        )
        running = []
        for subject in subjects:
            running.append(Running(subject, options.engine, config, folder))
            stack.callback(running[-1].close)
            print(f"{subject.name}: {running[-1].means}", file=sys.stderr)
        for load in loads:
            for one in running:
                one.serve(load)  # warm: not counted
        for repeat in range(options.repeats):
            for load in loads:
                rows += [{"repeat": repeat, **one.serve(load)} for one in running]
    for load in loads:
        same = [row["first ids"] for row in rows if row["concurrency"] == load.concurrency]
        if any(ids != same[0] for ids in same):
            print(f"{load}: not all subjects said the same first tokens", file=sys.stderr)
    lines = "\n".join(table(rows, subjects))
    print(lines)
    if options.json is not None:
        facts = machine() | {"shape": shape.name, "dtype": options.dtype, "engine": options.engine}
        options.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
        told = "\n".join([f"* {name}: {value}" for name, value in facts.items()])
        options.json.with_suffix(".md").write_text(f"{told}\n\n{lines}\n")


if __name__ == "__main__":
    main()
