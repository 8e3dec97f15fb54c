"""java.util.Properties as an oracle: seeded texts, and what the JDK reads in them.

`python -m tests.unit.config.java.oracle` records the cases anew (it needs a JDK).
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
RECORDED_SEED = 17
JVM_TIMEOUT_S = 120

Assignments = list[tuple[str, str]]

CORNERS = (
    "", "\n", "\\", "\\\n", "\\\r", "\\\r\n", "\\\n\n", "\\\n\\\n", "\\\n ", "a\\", "a\\\n",
    "a\\\r\n", "\\\n#a=b", "\\\n=b", "a\\\n#b", "a\\\n\nb", "a=b\\\r\n\tc", "a=b\\\n\r\nc",
    "a = b ", "a b", "a=", "a", "=", ":", " = ", "=a", "a==b", "a=:b", "a =: b", "a:= b",
    "a  :  =  b", "a\\=b=c", "a\\ b c", "a\\\\=b", "a\\\\\\=b", "a\fb", "\f\t a=b", "# a=b",
    " !a=b", "a#b=c", "a=b#c", "#a\\\nb=c", "#\\\r\nb=c", "a=1\na=2", "a=\\u0041\\u00e9",
    "a=\\u00E9", "\\u0061=b", "\\u003d=b", "a\\u003db=c", "a=\\u", "a=\\u12", "a=\\u12\nb=1",
    "a=\\u123g", "a=\\U0041", "a=\\\\u12", "\\u12=b", "#\\u12\na=b", "a=\\u00\\\n41",
    "a=\\ud83d\\ude00", "a=\\ud83d", "a=\\ude00\\ud83d", "a=\ud83d\\ude00", "a=😀", "a=\\😀",
    "😀=a", "a=\\t\\n\\r\\f\\b\\0\\x", "\\t=\\ ", "a=\\ b", "a=\\  b", "a= \\ b", "a=b\\ ",
    "a=b\\\\", "a=b\\\\\n", "\ufeffa=b", "a=b\u0085c", "a=b\u2028c=d", "a\u00a0b=c", "a=b\x0bc",
    "a=b\0c", "a\rb\r\rc", "a=\u0660\\u066000", "a=" + "x" * 8190 + "\\\n  y",
    "a=" + "x" * 8189 + "\\\r\ny\nb=c", "#" + "x" * 8191 + "\na=b", "#" + "x" * 9000 + "\ra=b",
    "a=" + "x" * 20000, " " * 8192 + "a=b", "a=" + "\\u0041" * 1400,
)  # fmt: skip

_PIECES = (
    "\\", "\\", "\\", "\n", "\n", "\r", "\r\n", "\r\n", " ", " ", "\t", "\f", "=", "=", ":", "#",
    "!", "\\\n", "\\\r", "\\\r\n", "\\u", "\\u0", "\\u0041", "\\u00e9", "\\u003D", "\\u005c",
    "\\u000a", "\\ud83d", "\\uDE00", "\\n", "\\t", "\\r", "\\f", "\\ ", "\\=", "\\:", "\\#", "u",
    "a", "b", "0", "4", "F", "g", "option.dtype", "engine=MPI\n", "\n# ", "  ", "é", "😀",
    "\ud83d", "\ude00", "\ufeff", "\x85", "\u2028", "\0", "\x0b", "\xa0", "٤",
)  # fmt: skip


def texts(seed: int, count: int) -> Iterator[str]:
    """`count` texts, heavy on special characters; some longer than Java's buffer (8,192)."""
    rng = random.Random(seed)
    for number in range(count):
        pieces = rng.choices(_PIECES, k=rng.randint(1, 24))
        if number % 500 == 0:
            pieces.insert(rng.randrange(len(pieces)), "x" * (8192 - rng.randint(0, 40)))
        yield "".join(pieces)


def ask_java(inputs: Sequence[str], folder: Path) -> list[Assignments | None]:
    """What the JDK reads in each text, None where it refuses. The class is built in `folder`."""
    source = HERE / "PropertiesOracle.java"
    subprocess.run(
        ["javac", "-Xlint:all", "-Werror", "-d", folder, source], check=True, timeout=JVM_TIMEOUT_S
    )
    answer = subprocess.run(
        ["java", "-XX:+UseSerialGC", "-cp", folder, "PropertiesOracle"],
        input=b"".join(_frame(text) for text in inputs),
        stdout=subprocess.PIPE,
        check=True,
        timeout=JVM_TIMEOUT_S,
    ).stdout
    return list(_answers(answer))


def as_java_holds(text: str) -> str:
    """The text with each surrogate pair as one character, which in UTF-16 it is anyway."""
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


def _frame(text: str) -> bytes:
    units = text.encode("utf-16-be", "surrogatepass")
    return struct.pack(">i", len(units) // 2) + units


def _answers(data: bytes) -> Iterator[Assignments | None]:
    at = 0

    def number() -> int:
        nonlocal at
        (value,) = struct.unpack_from(">i", data, at)
        at += 4
        return int(value)

    def string() -> str:
        nonlocal at
        size = 2 * number()
        at += size
        return data[at - size : at].decode("utf-16-be", "surrogatepass")

    while at < len(data):
        count = number()
        yield None if count < 0 else [(string(), string()) for _ in range(count // 2)]


def record(folder: Path) -> None:
    """Record the corners and 250 seeded texts with what the JDK reads in them."""
    inputs = [*CORNERS, *texts(RECORDED_SEED, 251)]
    inputs = [as_java_holds(text) for text in inputs if len(text) < 1000]
    lines = [
        json.dumps({"text": text, "java": java})
        for text, java in zip(inputs, ask_java(inputs, folder), strict=True)
    ]
    RECORDED.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="ascii")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        record(Path(scratch))
