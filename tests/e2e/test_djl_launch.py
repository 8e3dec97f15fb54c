"""`lmi serve` behind the DJL model server (a stand-in), and the worker that the server starts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import djl_client, djl_serving
from tests.support.djl_client import FakeJava
from tests.support.launched_worker import HANDLERS, started, started_by_mpirun
from tests.support.serving import DEMO

pytestmark = pytest.mark.slow

VERSION = "0.36.0"
BODY = b'{"inputs": "one two three", "parameters": {"max_new_tokens": 4}}'
MODEL_PY = """
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add_as_json({"options": inputs.get_properties(), "body": inputs.get_as_json()})
"""
ENTRYPOINT = Path(__file__).resolve().parent.parent.parent / "docker" / "entrypoint.sh"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="xF", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def java(place: Path) -> Path:
    """The stand-in, installed."""
    return djl_serving.install(place / "djl", VERSION)


def _folder(place: Path, text: str, **files: str) -> Path:
    folder = place / "model"
    folder.mkdir()
    (folder / "serving.properties").write_text(text)
    for name, content in files.items():
        (folder / name.replace("_py", ".py")).write_text(content)
    return folder


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _environ(place: Path, java: Path, **more: str) -> dict[str, str]:
    (place / "t").mkdir(exist_ok=True)
    return {
        **os.environ,
        "DJL_SERVING_HOME": str(java),
        "DJL_CACHE_DIR": str(place / "cache"),
        "TMPDIR": str(place / "t"),
        **more,
    }


def _serve(folder: Path, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "lmi.cli", "serve", str(folder), "--port", str(_free_port())]
    return subprocess.Popen(words, env=dict(environ), stderr=subprocess.PIPE, text=True)


def _record(java: Path) -> dict[str, Any]:
    found = json.loads((java / djl_serving.RECORD).read_text())
    assert isinstance(found, dict)
    return found


def _await(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < until
        time.sleep(0.05)  # a file of another process: there is no event to wait on


@pytest.mark.parametrize("code", [0, 1, 2, 77, 137])
def test_the_servers_exit_code_is_ours(place: Path, java: Path, code: int) -> None:
    folder = _folder(place, "engine=echo")
    process = _serve(folder, _environ(place, java, STAND_IN_EXIT=str(code)))
    process.communicate(timeout=60)
    assert process.returncode == code


def test_the_server_takes_our_process_and_our_signals(place: Path, java: Path) -> None:
    process = _serve(_folder(place, "engine=echo"), _environ(place, java))
    _await(java / djl_serving.STARTED, process)
    assert _record(java)["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_model_that_cannot_be_had_ends_with_one_line_before_java(place: Path, java: Path) -> None:
    text = f"engine=lmi-dist\noption.model_id={place}/nothing-here"
    process = _serve(_folder(place, text), _environ(place, java))
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "nothing-here" in line
    assert not (java / djl_serving.RECORD).exists()


def test_a_taken_port_ends_with_one_line_before_java(place: Path, java: Path) -> None:
    folder = _folder(place, "engine=echo")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        words = [sys.executable, "-m", "lmi.cli", "serve", str(folder), "--port", str(port)]
        done = subprocess.run(
            words, env=_environ(place, java), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert f"error: inference_address='127.0.0.1:{port}'" in done.stderr


def test_the_entry_script_starts_the_server_again_when_it_asks_for_it(
    place: Path, java: Path
) -> None:
    folder = _folder(place, "engine=echo")
    starts = place / "starts"
    launcher = java / "bin" / "djl-serving"
    launcher.write_text(
        f"#!/bin/sh\necho x >> {starts}\n[ $(wc -l < {starts}) -lt 3 ] && exit 77\nexit 5\n"
    )
    bin_folder = Path(sys.executable).parent
    environ = _environ(place, java, PATH=f"{bin_folder}:{java / 'bin'}:{os.environ['PATH']}")
    words = ["sh", str(ENTRYPOINT), "serve", str(folder), "--port", str(_free_port())]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5, done.stderr
    assert starts.read_text() == "x\n" * 3


def test_a_signal_to_the_entry_script_reaches_the_server(place: Path, java: Path) -> None:
    bin_folder = Path(sys.executable).parent
    environ = _environ(place, java, PATH=f"{bin_folder}:{java / 'bin'}:{os.environ['PATH']}")
    folder = _folder(place, "engine=echo")
    words = ["sh", str(ENTRYPOINT), "serve", str(folder), "--port", str(_free_port())]
    process = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True)
    _await(java / djl_serving.STARTED, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_the_staged_worker_answers_without_java_s_map(place: Path, java: Path) -> None:
    folder = _folder(place, "engine=echo\noption.max_model_len=99")
    process = _serve(folder, _environ(place, java, OPTION_TGI_COMPAT="true", STAND_IN_EXIT="0"))
    process.communicate(timeout=60)
    record = _record(java)
    run = Path(record["words"][1]).parent
    engines = place / "cache" / "python" / VERSION
    environ = {
        name: record["environ"].get(name, "") for name in ("OPTION_TGI_COMPAT", "HF_MODEL_ID")
    }

    async def ask() -> str:
        staged = run / "models" / "model"
        async with (
            started(staged, place, engines=engines, asynchronous=True, environ=environ) as worker,
            FakeJava.connected(worker.socket) as client,
        ):
            assert (await client.initialise({})).code < 300
            asked = await client.ask(BODY)
            return "".join(asked.chunks)

    assert json.loads(asyncio.run(ask()))[0]["generated_text"]


def test_a_raw_folder_is_enough_for_a_worker(place: Path) -> None:
    folder = _folder(place, "engine=echo")

    async def ask() -> list[int]:
        async with (
            started(folder, place, asynchronous=None) as worker,
            FakeJava.connected(worker.socket) as client,
        ):
            assert (await client.initialise({"rolling_batch": "auto"})).code < 300
            asked = [client.rolling.add(BODY) for _ in range(3)]
            await client.rolling.finish()
            assert all("generated_text" in "".join(one.chunks) for one in asked)
            client.close()
            return [await worker.end()]

    assert asyncio.run(ask()) == [0]


def test_the_map_alone_says_what_to_serve(place: Path) -> None:
    folder = _folder(place, "", model_py=MODEL_PY)

    async def ask() -> dict[str, Any]:
        async with (
            started(folder, place) as worker,
            FakeJava.connected(worker.socket) as client,
        ):
            reply = await client.initialise({"my_own": "7", "job_queue_size": "5"})
            assert reply.code < 300
            answer = await client.predict(b'{"a": 1}')
            assert answer.status == 200
            found = json.loads(answer.body)
            assert isinstance(found, dict)
            return found

    assert asyncio.run(ask())["body"] == {"a": 1}


def test_what_is_wrong_in_the_folder_ends_the_worker_before_its_marker(place: Path) -> None:
    folder = _folder(place, "engine=echo\noption.dtpye=bf16")

    async def ask() -> str:
        with pytest.raises(EOFError) as told:
            async with started(folder, place):
                pass
        return str(told.value)

    assert "option.dtpye='bf16' (from serving.properties:2): unknown option" in asyncio.run(ask())


def test_what_is_wrong_in_the_map_fails_the_load(place: Path) -> None:
    folder = _folder(place, "engine=echo")

    async def ask() -> tuple[int, str | None]:
        async with (
            started(folder, place) as worker,
            FakeJava.connected(worker.socket) as client,
        ):
            reply = await client.initialise({"dtpye": "bf16"})
            return reply.code, reply.message

    code, message = asyncio.run(ask())
    assert code >= 300
    assert message is not None
    assert "did you mean option.dtype?" in message


def test_without_the_package_the_engine_says_the_way_out_in_one_line(place: Path) -> None:
    bare = [sys.executable, "-I", "-S", str(HANDLERS / "djl_python_engine.py")]
    done = subprocess.run(bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "PYTHON_EXECUTABLE" in line


MPIRUN = shutil.which("mpirun")
AS_JAVA = ("-np", "2", "--allow-run-as-root", "--bind-to", "none", "--tag-output")


@pytest.mark.skipif(MPIRUN is None, reason="Open MPI is not installed")
def test_under_the_servers_own_mpirun_the_other_ranks_compute_with_the_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(djl_client, "SECONDS", 200.0)  # two ranks import torch on a busy machine
    folder = place / "model"
    shutil.copytree(DEMO, folder)
    (folder / "serving.properties").write_text("engine=MPI\noption.rolling_batch=lmi-dist\n")
    told = {"rolling_batch": "vllm", "mpi_mode": "false", "tensor_parallel_degree": "2"}

    async def ask() -> str:
        async with (
            started_by_mpirun(folder, place, AS_JAVA) as worker,
            FakeJava.connected(Path(f"{worker.socket}.0")) as first,
            FakeJava.connected(Path(f"{worker.socket}.1")) as second,
        ):
            follows = asyncio.create_task(second.initialise(told))
            assert (await first.initialise(told)).code < 300
            assert (await follows).code < 300
            asked = first.rolling.add(BODY)
            await first.rolling.finish()
            family = psutil.Process(worker.process.pid).children(recursive=True)
            (joined,) = (each for each in family if "--join" in each.cmdline())
            first.close()
            second.close()
            assert await worker.end() == 0, worker.lines
            assert not joined.is_running() or joined.status() == psutil.STATUS_ZOMBIE
            return "".join(asked.chunks)

    assert json.loads(asyncio.run(ask()))["generated_text"]
