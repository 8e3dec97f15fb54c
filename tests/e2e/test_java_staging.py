"""What `lmi serve` stages for the DJL model server is loaded by the server's own Java classes.

The server itself can't be had, so a stand-in takes its place and records what it was given; the
Java driver then loads that engine folder and that model folder, with those variables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import djl_serving
from tests.support.java_build import Unavailable, build
from tests.support.java_driver import JavaDriver
from tests.support.java_folders import demo_folder, echo_folder, handler_folder
from tests.support.serving import OURS, free_port

pytestmark = pytest.mark.slow

VERSION = "0.34.0"
STAGED_SECONDS = 60.0
HANDLER = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add_as_json({"said": inputs.get_as_json()})
"""
MODELS = {
    "echo": lambda folder: echo_folder(folder),
    "echo-async": lambda folder: echo_folder(folder, {"option.async_mode": "true"}),
    "lmi-dist": lambda folder: demo_folder(folder, {"option.rolling_batch": "auto"}),
    "handler": lambda folder: handler_folder(folder, HANDLER),
}
BODY = {"inputs": "Return the name of", "parameters": {"max_new_tokens": 4}}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="xG") as folder:
        yield Path(folder)


@pytest.mark.parametrize("model", MODELS)
def test_the_staged_folder_is_loaded_as_it_stands(model: str, place: Path) -> None:
    try:
        build(VERSION)
    except Unavailable as missing:
        pytest.skip(str(missing))
    folder = MODELS[model](place / "model")
    server = djl_serving.install(place / "djl", VERSION)
    (place / "t").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ = {
        **clean,
        "DJL_SERVING_HOME": str(server),
        "DJL_CACHE_DIR": str(place / "cache"),
        "TMPDIR": str(place / "t"),
    }
    words = [sys.executable, "-m", "lmi.cli", "serve", str(folder), "--port", str(free_port())]
    launch = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        record = wait_for_record(server, launch)
        config = Path(record["words"][record["words"].index("-f") + 1])
        staged = [name for name in record["run"] if name.endswith("serving.properties")]
        assert len(staged) == 1, record["run"].keys()
        given = {k: v for k, v in record["environ"].items() if clean.get(k) != v}
        with JavaDriver(VERSION, place / "cache", place, environ=given) as java:
            java.load(config.parent / Path(staged[0]).parent)
            answer = java.predict(BODY)
            assert (answer.code, answer.trouble) == (200, None)
            if model == "handler":
                assert answer.json() == {"said": BODY}
            elif model == "lmi-dist":
                assert answer.json() == {"generated_text": " the name.\n"}
            else:
                assert answer.json()["generated_text"]
            everything = java.workers()
            assert str(place) in everything[0].cmdline()[1], "the staged engine folder"
    finally:
        launch.kill()
        launch.communicate(timeout=30)


def wait_for_record(server: Path, launch: subprocess.Popen[str]) -> dict[str, Any]:
    """What the stand-in was given, once it has all of it."""
    until = time.monotonic() + STAGED_SECONDS
    while not (server / djl_serving.STARTED).exists():
        if launch.poll() is not None or time.monotonic() > until:
            launch.kill()
            raise AssertionError(launch.communicate()[1])
        time.sleep(0.05)  # a file of another process: there is no event to wait on
    found: dict[str, Any] = json.loads((server / djl_serving.RECORD).read_text())
    return found
