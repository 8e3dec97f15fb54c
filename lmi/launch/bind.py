"""From a ModelSpec to a BoundSpec: the model's files are fetched, what was symbolic is decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmi.config.spec import ModelSpec
from lmi.core import ConfigError
from lmi.engines import BoundSpec, Progress, cards
from lmi.models import Store, default_cache


def bind(spec: ModelSpec, environ: Mapping[str, str], progress: Progress) -> BoundSpec:
    """Fetch what the engine needs and decide the rest. Raises ModelError or ConfigError."""
    degree = tensor_parallel_degree(spec)
    if not cards()[spec.engine].needs_model:
        return BoundSpec(spec, None, degree)
    named = spec.server.download_dir
    store = Store(Path(named) if named else default_cache(environ), progress=progress)
    return BoundSpec(spec, store.get(spec.model, revision=spec.revision).path, degree)


def tensor_parallel_degree(spec: ModelSpec) -> int:
    """Ranks that share a copy of the model: `max` and nothing said mean one, so far.

    Raises ConfigError for more than the engine can use. Needs no download and no device.
    """
    asked = spec.tensor_parallel_degree
    if isinstance(asked, int) and asked > 1:
        raise ConfigError(
            "option.tensor_parallel_degree",
            str(asked),
            "the configuration",
            f"{spec.engine} runs on one device in this release: expected 1 or max",
        )
    return 1
