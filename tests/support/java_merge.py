"""The map that the DJL model server makes of a folder and an environment, as its documents say.

A model of its automatic configuration (0.36, a Hugging Face model, no GPU): what is merged, what is
rewritten, what is added, and that `option.` is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lmi.config.properties import load

_PLAIN = re.compile(r"[A-Z_0-9]+")
_LARGE = ("vllm", "trtllm")


def initialise_map(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker gets in its first message."""
    found = {entry.key: entry.value for entry in load(folder / "serving.properties")}
    for name, text in environ.items():
        key = _key(name)
        if key is not None and text:
            found.setdefault(key, text)
    for name in ("TENSOR_PARALLEL_DEGREE", "PIPELINE_PARALLEL_DEGREE"):
        if environ.get(name):
            found.setdefault(f"option.{name.lower()}", environ[name])
    workers = environ.get("SAGEMAKER_NUM_MODEL_WORKERS")
    if workers:
        found |= {"minWorkers": workers, "maxWorkers": workers}
    _configure(found, environ.get("SERVING_FEATURES", ""))
    found.setdefault("option.handler", "handle")
    found.pop("option.env", None)
    return {key.removeprefix("option."): text for key, text in found.items()}


def _key(name: str) -> str | None:
    for prefix, start in (("OPTION_", "option."), ("ARGS_", "")):
        if name.startswith(prefix) and len(name) > len(prefix):
            rest = name.removeprefix(prefix)
            if prefix == "OPTION_" and rest in ("ENTRYPOINT", "ENGINE"):
                return {"ENTRYPOINT": "option.entryPoint", "ENGINE": "engine"}[rest]
            return start + (rest.lower() if _PLAIN.fullmatch(rest) else rest)
    return None


def _configure(found: dict[str, str], features: str) -> None:
    """The automatic configuration, with the model's config.json found."""
    rolling = found.get("option.rolling_batch")
    if found.get("batch_size", "1") not in ("", "1"):
        found["option.rolling_batch"] = "disable"
    elif rolling == "lmi-dist":
        found |= {"option.rolling_batch": "vllm", "option.mpi_mode": "false"}
    elif rolling in (None, "auto"):
        found["option.rolling_batch"] = "disable"
        if any(name in features for name in _LARGE):
            found["option.async_mode"] = "true"
    if found["option.rolling_batch"] == "trtllm":
        found["option.mpi_mode"] = "true"
    found.setdefault("option.pipeline_parallel_degree", "1")
    most = "256" if found["option.rolling_batch"] in _LARGE else "32"
    found.setdefault("option.max_rolling_batch_size", most)
    found.setdefault("engine", "Python")
