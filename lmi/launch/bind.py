"""From a ModelSpec to a BoundSpec: the model's files are fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmi.config.choose import FUNCTIONS
from lmi.config.spec import ModelSpec
from lmi.engines import BoundSpec, Progress, cards
from lmi.models import Store, default_cache


def bind(spec: ModelSpec, environ: Mapping[str, str], progress: Progress) -> BoundSpec:
    """Fetch what the engine or the handler needs. Raises ModelError."""
    if not needs_files(spec):
        return BoundSpec(spec, None)
    named = spec.server.download_dir
    store = Store(Path(named) if named else default_cache(environ), progress=progress)
    return BoundSpec(spec, store.get(spec.model, revision=spec.revision).path)


def needs_files(spec: ModelSpec) -> bool:
    """Whether the model's files must be here before it is loaded.

    A handler of the model's own gets a hub id as it is, as in the reference: it may want nothing
    but a tokenizer of that model.
    """
    if spec.engine != FUNCTIONS:
        return cards()[spec.engine].needs_model
    if spec.model_id is None:
        return False
    return not spec.has_custom_handler or spec.model_id.startswith("s3://")
