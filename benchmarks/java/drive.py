"""Closed-loop load through DJL's own Java classes: what a worker reaches behind the model server.

    python -m benchmarks.java.drive --model FOLDER --mode rolling --streams 1 8 32 --seconds 10 \
        --body '{"inputs": "Hi", "parameters": {"max_new_tokens": 64}}' --tokens 64

The program is server and client at once: Java's socket, queues and threads are in the figures, HTTP
is not. Each stream sends its next request when its last answer is whole. The engine folder is
`handlers/`, or another (`--engine-folder`, for the stock one). Needs a JDK and Maven.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.java_build import ROOT, VERSIONS, engine_folder
from tests.support.java_driver import JavaDriver

HANDLERS: Final = ROOT / "handlers"
MODES: Final[Mapping[str, Mapping[str, str]]] = {
    "plain": {},
    "rolling": {"rolling_batch": "auto", "max_rolling_batch_size": "256"},
    "async": {"async_mode": "true"},
}


@contextmanager
def behind_java(
    model: Path,
    options: Mapping[str, str],
    *,
    version: str = "0.34.0",
    engine: Path = HANDLERS,
    environ: Mapping[str, str] | None = None,
    load_seconds: float = 240.0,
) -> Iterator[JavaDriver]:
    """A model loaded by Java from its folder, with the Python of `engine`.

    options: as in a serving.properties, without `option.`. Raises java_build.Unavailable, and
    JavaError where the model can't be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="xd") as scratch:
        root = Path(scratch)
        shutil.copytree(engine, engine_folder(root / "cache", version))
        with JavaDriver(version, root / "cache", root, environ=environ, log_level="warn") as java:
            java.load(model, options, seconds=load_seconds)
            yield java


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Closed-loop load through DJL's Java classes.")
    parser.add_argument("--version", choices=VERSIONS, default="0.34.0")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--mode", choices=tuple(MODES), default="rolling")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--engine-folder", type=Path, default=HANDLERS)
    parser.add_argument("--body", action="append", required=True, help="JSON; several take turns")
    parser.add_argument("--tokens", type=int, default=0, help="of each answer, for tokens/s")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args(words)
    options = dict(MODES[arguments.mode])
    options |= dict(option.split("=", 1) for option in arguments.option)
    with behind_java(
        arguments.model.resolve(),
        options,
        version=arguments.version,
        engine=arguments.engine_folder,
    ) as java:
        for streams in arguments.streams:
            figures = java.drive(arguments.body, streams, arguments.seconds)
            figures = {"streams": streams, **rates(figures, arguments.tokens)}
            sys.stdout.write(json.dumps(figures) + "\n")
            sys.stdout.flush()


def rates(figures: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """The figures of a run with answers and tokens per second in them."""
    answers = figures["answers"] / figures["seconds"]
    return {
        **figures,
        "answers_per_second": round(answers, 2),
        "tokens_per_second": round(answers * tokens, 1),
    }


if __name__ == "__main__":
    main()
