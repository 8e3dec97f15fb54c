"""Record what DJL's real Java classes say, and what they understand, as golden files.

    python -m tests.golden.djl.record          writes VERSION-MODE.json beside this file

Each file holds argv, the messages of both sides in order as hex, and what Java made of the answers.
The engine of the talk is `stub/djl_python_engine.py`, which shares no code with ours. Paths of the
machine stand as {tmp} in argv; none goes over the socket.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.java_build import engine_folder
from tests.support.java_driver import Answer, JavaDriver, JavaError

FOLDER = Path(__file__).parent
# Java's own seeds and tracking ids are random: a record is written anew only by hand.
_TIMED = ("sizes", "times", "ms")


@dataclass(frozen=True, slots=True)
class Mode:
    """options: the model's, as its serving.properties have them. talk: what the client asks."""

    options: dict[str, str]
    talk: Callable[[JavaDriver], list[Answer | JavaError]]


def _plain(java: JavaDriver) -> list[Answer | JavaError]:
    query = [{"key": "max", "text": "3"}, {"text": "nameless"}]
    answers: list[Answer | JavaError] = [
        java.predict({"echo": "é 你好 👋"}, properties={"X-Id": "1", "Accept": "*/*"}),
        java.predict({"stream": 3}),
        java.predict({"stream": 0}),
        java.predict({"code": 424}),
        java.predict(None, content=[{"key": "data", "text": '{"a":1}'}, *query]),
    ]
    answers += java.batch([{"echo": 1}, {"echo": 2}, {"echo": 3}])
    return answers


def _together(java: JavaDriver) -> list[Answer | JavaError]:
    pending = [java.submit({"tokens": n}) for n in (3, 1, 5, 2)]
    answers: list[Answer | JavaError] = [p.answer.result(30) for p in pending]
    answers.append(java.predict({"code": 424}))
    return answers


def _rolling(java: JavaDriver) -> list[Answer | JavaError]:
    answers = _together(java)
    answers.append(java.predict({"break": True}))
    answers.append(java.predict({"tokens": 2}, properties={"X-Id": "after the reset"}))
    return answers


MODES = {
    "plain": Mode({}, _plain),
    "rolling": Mode({"rolling_batch": "auto", "max_rolling_batch_size": "8"}, _rolling),
    "async": Mode({"async_mode": "true"}, _together),
}
CASES = (
    ("0.25.0", "plain"),
    ("0.25.0", "rolling"),
    ("0.34.0", "plain"),
    ("0.34.0", "rolling"),
    ("0.34.0", "async"),
)


def record(version: str, name: str) -> dict[str, Any]:
    """The talk of one version in one mode."""
    mode = MODES[name]
    with tempfile.TemporaryDirectory(prefix="xr") as scratch:
        root = Path(scratch)
        shutil.copytree(FOLDER / "stub", engine_folder(root / "cache", version))
        model = root / "model"
        model.mkdir()
        (model / "model.py").write_text("# the stand-in engine looks into no file\n")
        talk = root / "talk.jsonl"
        with JavaDriver(
            version,
            root / "cache",
            root,
            environ={"LMI_RECORD": str(talk), "LMI_RECORD_MODE": name},
        ) as java:
            java.load(model, mode.options)
            answers = mode.talk(java)
            java.close_model()
            temporary = str(java.temporary)
        lines = [json.loads(line) for line in talk.read_text().splitlines()]
    argv = [
        part.replace(temporary, "{tmp}").replace(str(root), "{tmp}") for part in lines[0]["argv"]
    ]
    # Unloading in async mode starts the process once more, which Java's own end cuts short.
    messages = list(itertools.takewhile(lambda line: "hex" in line, lines[1:]))
    return {"argv": argv, "messages": messages, "answers": [_scrubbed(a) for a in answers]}


def _scrubbed(answer: Answer | JavaError) -> dict[str, Any]:
    if isinstance(answer, JavaError):
        return {"causes": list(answer.causes)}
    return {key: value for key, value in asdict(answer).items() if key not in _TIMED}


def main() -> None:
    for version, name in CASES:
        text = json.dumps(record(version, name), indent=1, ensure_ascii=False)
        (FOLDER / f"{version}-{name}.json").write_text(text + "\n")
        sys.stdout.write(f"{version} {name}\n")


if __name__ == "__main__":
    main()
