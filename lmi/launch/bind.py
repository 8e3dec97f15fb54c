"""From a ModelSpec to a BoundSpec: the model's files are fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmi.config.spec import ModelSpec
from lmi.engines import BoundSpec, Progress, cards
from lmi.models import Store, default_cache


def bind(spec: ModelSpec, environ: Mapping[str, str], progress: Progress) -> BoundSpec:
    """Fetch what the engine needs. Raises ModelError."""
    if not cards()[spec.engine].needs_model:
        return BoundSpec(spec, None)
    named = spec.server.download_dir
    store = Store(Path(named) if named else default_cache(environ), progress=progress)
    return BoundSpec(spec, store.get(spec.model, revision=spec.revision).path)
