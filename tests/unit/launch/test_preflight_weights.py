"""Quantised weights that need a library, or files that are here: told before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, Resolution, resolve
from lmi.config.resolution import Weights
from lmi.core import ConfigError
from lmi.launch.bind import ARTIFACTS, bind
from lmi.launch.preflight import preflight


def resolution(folder: Path, quantization: dict[str, object] | None = None) -> Resolution:
    config: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "serving.properties").write_text("engine=lmi-dist\noption.quantize=int8\n")
    found = resolve(folder, {}, installed={"lmi-dist"})
    if quantization is not None:
        config["quantization_config"] = quantization
        (folder / "config.json").write_text(json.dumps(config))
    return found


def test_a_library_that_is_not_here_is_named_with_what_installs_it(tmp_path: Path) -> None:
    found = resolution(tmp_path)
    preflight(found)
    lacking = replace(found, weights=Weights("int8", needs=("json", "no_such_library")))
    with pytest.raises(ConfigErrors, match=r"needs no_such_library, .* lmi\[quantize\]") as caught:
        preflight(lacking)
    assert caught.value.source == "serving.properties:2"


def test_files_that_contradict_the_options_stop_the_load(tmp_path: Path) -> None:
    changed = resolution(tmp_path, {"quant_method": "gptq", "bits": 4})
    with pytest.raises(ConfigError, match="quantised already: GPTQ, 4 bits"):
        bind(changed.spec, {}, lambda phase, done, total: None)


def test_what_is_made_of_a_model_is_kept_beside_the_downloaded_ones(tmp_path: Path) -> None:
    spec = resolution(tmp_path).spec
    environ = {"SERVING_DOWNLOAD_DIR": str(tmp_path / "downloads")}
    bound = bind(spec, environ, lambda phase, done, total: None)
    assert bound.artifacts == tmp_path / "downloads" / ARTIFACTS
