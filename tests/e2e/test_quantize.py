"""`lmi quantize` as a user runs it: killed and run again, beside another run, to S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from lmi.core import BuildError
from lmi.models import Store
from lmi.quantize.report import FILE, Report
from tests.support.serving import DEMO
from tests.unit.quantize.quantizing import Watching, made, task

pytestmark = pytest.mark.slow

# Each run imports torch and transformers.
SECONDS = 120.0


def _command(output: str, *flags: str) -> list[str]:
    """The flags of `quantizing.task`."""
    windows = ("--samples", "6", "--length", "48")
    place = ("--output", output)
    return [sys.executable, "-m", "lmi.cli", "quantize", str(DEMO), *place, *windows, *flags]


def _environ(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes_and_keeps_others_away(
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    command = _command(str(output), "--method", "gptq", "--group-size", "32")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environ())
    try:
        assert process.stderr is not None
        # Elsewhere than on a terminal each finished layer is a line.
        assert any("model.layers.0" in line for line in process.stderr)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(BuildError, match="another run writes"):
            made(task(DEMO, output))
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()

    second = Watching()
    report = made(task(DEMO, output), second)
    names = [layer.name for layer in report.layers]
    assert len(names) == 4
    finished = len(names) - len(second.layers)
    assert finished >= 1
    assert [layer.name for layer in second.layers] == names[finished:]

    whole = made(task(DEMO, tmp_path / "whole"))
    assert report.fidelity == whole.fidelity
    files = {path.name for path in output.iterdir()}
    assert files == {path.name for path in (tmp_path / "whole").iterdir()}
    for name in files - {FILE}:  # which holds the seconds that each layer took
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


@pytest.mark.usefixtures("s3")
def test_a_checkpoint_goes_to_s3_and_json_is_all_of_stdout(tmp_path: Path) -> None:
    from lmi.models.s3 import s3_client

    s3_client().create_bucket(Bucket="models")
    target = "s3://models/demo-int8"
    cache = tmp_path / "cache"
    ended = subprocess.run(
        _command(target, "--method", "int8", "--json"),
        env=_environ(SERVING_DOWNLOAD_DIR=str(cache)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["ok"], told["output"]) == (True, target)
    assert len(told["layers"]) == 4
    assert not list((cache / "quantized").iterdir())
    found = Store(tmp_path / "other").get(target, revision=None).path
    report = Report.read(found)
    assert report is not None
    assert report.key == told["key"]
    assert report.fidelity == made(task(DEMO, tmp_path / "here", report.settings.method)).fidelity
