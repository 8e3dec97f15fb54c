"""SageMaker's secure mode: what the platform forbids stops start-up.

The reference does this in a plug-in of its server. Its list of allowed keys is not kept: here every
unknown key stops start-up anyway, and a known one that brings code in is named below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os.path import isfile
from pathlib import Path

from lmi.config.folder import Folder
from lmi.config.values import Values, get, text_of
from lmi.core import ConfigError

_MODE = "SAGEMAKER_SECURE_MODE"
_CONTROLS = "SAGEMAKER_SECURITY_CONTROLS"
_CHANNELS = "SAGEMAKER_UNTRUSTED_CHANNELS"
_KNOWN = (
    "DISALLOW_TRUST_REMOTE_CODE",
    "DISALLOW_CUSTOM_INFERENCE_SCRIPTS",
    "DISALLOW_REQUIREMENTS_TXT",
    "DISALLOW_PICKLE_FILES",
    "DISALLOW_CHAT_TEMPLATE",
)
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_INTERPRETERS = ("/opt/djl/vllm_venv/bin/python", "/usr/bin/python3")


def is_secure(environ: Mapping[str, str]) -> bool:
    """Whether the platform has turned secure mode on."""
    return environ.get(_MODE, "").lower() == "true"


def violations(
    environ: Mapping[str, str], values: Values, folder: Folder | None
) -> Iterator[ConfigError]:
    """What secure mode forbids and the configuration has; nothing where the mode is off."""
    if not is_secure(environ):
        return
    controls = _listed(environ, _CONTROLS)
    unknown = [control for control in controls if control not in _KNOWN]
    if unknown or not controls:
        want = f"expected some of {', '.join(_KNOWN)}, separated by commas"
        yield ConfigError(_CONTROLS, environ.get(_CONTROLS), _CONTROLS, want)
    python = values.get("option.pythonExecutable")
    if python is not None and python.text not in _INTERPRETERS:
        yield python.error(f"secure mode allows {' and '.join(_INTERPRETERS)} only")
    if "option.env" in values:
        yield values["option.env"].error("secure mode forbids it")
    if "DISALLOW_TRUST_REMOTE_CODE" in controls and get(values, "option.trust_remote_code"):
        yield values["option.trust_remote_code"].error(_forbids("DISALLOW_TRUST_REMOTE_CODE"))
    if "DISALLOW_CUSTOM_INFERENCE_SCRIPTS" in controls:
        entry_point = text_of(values, "option.entryPoint")
        if entry_point is not None and not entry_point.startswith("djl_python."):
            want = _forbids("DISALLOW_CUSTOM_INFERENCE_SCRIPTS")
            yield values["option.entryPoint"].error(want)
        if folder is not None and folder.model_py:
            yield _file(folder.path / "model.py", "DISALLOW_CUSTOM_INFERENCE_SCRIPTS")
    if "DISALLOW_REQUIREMENTS_TXT" in controls and folder is not None:
        requirements = folder.path / "requirements.txt"
        if isfile(requirements):
            yield _file(requirements, "DISALLOW_REQUIREMENTS_TXT")
    for channel in _listed(environ, _CHANNELS):
        yield from _in_channel(Path(channel), controls)


def _in_channel(channel: Path, controls: tuple[str, ...]) -> Iterator[ConfigError]:
    for path in sorted(channel.rglob("*")):
        if "DISALLOW_PICKLE_FILES" in controls and path.suffix.lower() in _PICKLES:
            yield _file(path, "DISALLOW_PICKLE_FILES")
        if "DISALLOW_CHAT_TEMPLATE" in controls and path.name == "tokenizer_config.json":
            try:
                found = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                yield ConfigError(path.name, None, str(path), f"expected readable JSON: {error}")
            else:
                if isinstance(found, dict) and "chat_template" in found:
                    yield _file(path, "DISALLOW_CHAT_TEMPLATE")


def _listed(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(word for part in environ.get(name, "").split(",") if (word := part.strip()))


def _file(path: Path, control: str) -> ConfigError:
    return ConfigError(path.name, None, str(path), _forbids(control))


def _forbids(control: str) -> str:
    return f"secure mode forbids it: {control}"
