"""From a ModelSpec to a BoundSpec: the model's files are fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lmi.config.choose import FUNCTIONS
from lmi.config.spec import ModelSpec
from lmi.config.vllm_arguments import installed_release
from lmi.config.weights import settled
from lmi.engines import BoundSpec, Progress, cards
from lmi.engines.hardware import here
from lmi.models import Store, default_cache

ARTIFACTS: Final = "artifacts"
"""The folder, beside the downloaded models, for what is made of them."""


def bind(spec: ModelSpec, environ: Mapping[str, str], progress: Progress) -> BoundSpec:
    """Fetch what the engine or the handler needs. Raises ModelError, and as `bind_fetched` does."""
    if not needs_files(spec):
        return BoundSpec(spec, None)
    store = Store(_cache(spec, environ), progress=progress)
    return bind_fetched(spec, environ, store.get(spec.model, revision=spec.revision).path)


def bind_fetched(spec: ModelSpec, environ: Mapping[str, str], path: Path) -> BoundSpec:
    """The same for a model whose files are here. Raises ConfigError for a quantisation of theirs
    that the engine can't do."""
    spec = settled(spec, path, here(), installed_release())
    return BoundSpec(spec, path, _cache(spec, environ) / ARTIFACTS)


def _cache(spec: ModelSpec, environ: Mapping[str, str]) -> Path:
    """Where downloads are kept: option download_dir, else what the environment says."""
    named = spec.server.download_dir
    return Path(named) if named else default_cache(environ)


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
