"""`option.quantize=smoothquant` alone: quantised at the first start, found at the next."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.outlier_models import plant_outliers
from tests.support.serving import DEMO, Serving, serving

pytestmark = pytest.mark.slow

MADE = "calibrating and quantising"
FIRST_START_SECONDS = 240.0  # a busy machine imports transformers for a minute
PROMPTS = ("The with statement", "Return the number of", "A list is")


def model_folder(folder: Path, source: Path, *lines: str) -> Path:
    """A folder that names the model and says this of it."""
    folder.mkdir()
    properties = (f"option.model_id={source}", "option.threads=1", *lines)
    (folder / "serving.properties").write_text("\n".join(properties) + "\n")
    return folder


def answers(server: Serving) -> list[str]:
    found = []
    for prompt in PROMPTS:
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 16}}
        answer = httpx.post(f"{server.url}/invocations", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["generated_text"])
    return found


def test_the_second_start_takes_what_the_first_one_made(tmp_path: Path) -> None:
    model = plant_outliers(DEMO, tmp_path / "model")
    (model / "serving.properties").unlink()
    folder = model_folder(tmp_path / "endpoint", model, "option.quantize=smoothquant")
    environ = {"SERVING_DOWNLOAD_DIR": str(tmp_path / "cache")}
    with serving(tmp_path / "first.log", str(folder), environ=environ, ready=False) as server:
        server.wait_for_ping(200, FIRST_START_SECONDS)
        first = answers(server)
        assert MADE in server.log
        assert "W8A8" in server.log
    with serving(tmp_path / "second.log", str(folder), environ=environ) as server:
        assert answers(server) == first
        assert MADE not in server.log
        assert "W8A8" in server.log
    (artifact,) = (tmp_path / "cache" / "artifacts").glob("smoothquant-*")
    assert (artifact / "passport.json").is_file()


def test_calibration_data_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path / "endpoint",
        DEMO,
        "option.quantize=smoothquant",
        "option.calibration_data=nowhere.txt",
    )
    with serving(tmp_path / "log", str(folder), ready=False) as server:
        assert server.process.wait(60) == 2
        assert "nowhere.txt" in server.log
        assert "Traceback" not in server.log
