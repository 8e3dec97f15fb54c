"""From a ModelSpec to a BoundSpec: the model's files are fetched, what was symbolic is decided."""

from __future__ import annotations

from collections.abc import Mapping

from lmi.config.spec import ModelSpec
from lmi.core import ConfigError
from lmi.engines import BoundSpec, Progress, cards
from lmi.models import Store, default_cache


def bind(spec: ModelSpec, environ: Mapping[str, str], progress: Progress) -> BoundSpec:
    """Fetch what the engine needs and decide the rest. Raises ModelError or ConfigError."""
    degree = _tensor_parallel_degree(spec)
    if not cards()[spec.engine].needs_model:
        return BoundSpec(spec, None, degree)
    store = Store(default_cache(environ), progress=progress)
    return BoundSpec(spec, store.get(spec.model, revision=spec.revision).path, degree)


def _tensor_parallel_degree(spec: ModelSpec) -> int:
    """`max` and nothing said mean as many ranks as the engine can use here: one, so far."""
    asked = spec.tensor_parallel_degree
    if isinstance(asked, int) and asked > 1:
        raise ConfigError(
            "option.tensor_parallel_degree",
            str(asked),
            "the configuration",
            f"{spec.engine} runs on one device in this release: expected 1 or max",
        )
    return 1
