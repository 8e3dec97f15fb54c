"""A million frames of garbage and of good sense: `python -m benchmarks.wire_soak` (`make soak`).

Half are bytes that are no messages, or nearly, in pieces of any size: each must parse or be
refused, without memory. Half are messages made at random: each must come out as it went in,
wherever it was cut. Exit code 1 with the seed of the first that does not.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from pathlib import Path

from lmi.djl.decode import Decoder
from lmi.djl.wire import Message, Width
from tests.support.djl_bytes import request
from tests.support.djl_garbage import garbage, parses

FRAMES = 1_000_000
_LETTERS = "abcé€𝄞 :/-"
_GROWTH_MIB = 64  # of this process, beyond what it had after the first thousandth


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.wire_soak", description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20,000 frames")
    parser.add_argument("--json", type=Path, help="write what happened here")
    given = parser.parse_args()
    frames = 20_000 if given.quick else given.frames
    started = time.monotonic()
    counts = {"refused": 0, "parsed": 0, "round trips": 0}
    baseline = 0
    for number in range(frames):
        draw = random.Random(f"{given.seed}-{number}")
        if number % 2:
            good = parses(garbage(draw), draw.randint(0, 4), draw)
            counts["parsed" if good else "refused"] += 1
        elif round_trip(draw):
            counts["round trips"] += 1
        else:
            print(f"seed {given.seed}-{number}: a message came out as another one")
            return 1
        if number == frames // 1000:
            baseline = _peak_mib()
    grown = _peak_mib() - baseline
    seconds = time.monotonic() - started
    shown = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    print(f"{frames:,} frames in {seconds:.0f} s: {shown}; memory grew by {grown} MiB")
    if given.json is not None:
        result = {"frames": frames, "seconds": seconds, "grown MiB": grown, **counts}
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if grown > _GROWTH_MIB else 0


def round_trip(draw: random.Random) -> bool:
    """Whether random messages come out as they went in."""
    width = draw.choice(list(Width))
    said = [_message(draw) for _ in range(draw.randint(1, 3))]
    data = b"".join([request(one.properties, one.content, width) for one in said])
    decoder, found = Decoder(), list[Message]()
    while data:
        size = draw.choice((1, 2, 3, 10, 100, 1000))
        found += decoder.feed(data[:size])
        data = data[size:]
    return found == said and not decoder.pending


def _message(draw: random.Random) -> Message:
    properties = {f"k{n}" + _text(draw): _text(draw) for n in range(draw.randint(1, 5))}
    if draw.random() < 0.4:
        size = draw.randint(0, 12)
        known = draw.randint(0, size)
        content = [
            (f"batch_{n:03}.data", b"" if n < known else draw.randbytes(draw.randint(0, 30)))
            for n in range(size)
        ]
        return Message(properties, tuple(content))
    names = [None if draw.random() < 0.2 else _text(draw) for _ in range(draw.randint(0, 4))]
    return Message(properties, tuple([(n, draw.randbytes(draw.randint(0, 300))) for n in names]))


def _text(draw: random.Random) -> str:
    return "".join(draw.choices(_LETTERS, k=draw.randint(0, 12)))


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
