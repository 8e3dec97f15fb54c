"""`Store`: the one way to models, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmi.core import ModelError
from lmi.models.header import ModelHeader, read_header
from lmi.models.hub import HubSource
from lmi.models.local import LocalSource, put_local
from lmi.models.place import Folder, HubModel, S3Prefix, place_of, s3_prefix
from lmi.models.s3 import S3Source, put_s3
from lmi.models.source import LocalModel, Progress, Source


def default_cache(environ: Mapping[str, str]) -> Path:
    """Where downloads are kept: SERVING_DOWNLOAD_DIR, else below XDG_CACHE_HOME, else ~/.cache."""
    if named := environ.get("SERVING_DOWNLOAD_DIR"):
        return Path(named)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmi" / "models"


def _quiet(phase: str, done: int, total: int) -> None:
    """Progress for callers that show none."""


class Store:
    """Gets models from folders, the hub and S3, and puts them into folders and S3.

    cache: the folder for what comes from S3. hub_cache: the folder for what comes from the hub,
    None for huggingface_hub's own, which other programs share. hub_endpoint: another hub, None for
    the library's default (HF_ENDPOINT). Nothing is looked at or made before the first call; every
    method raises ModelError.
    """

    def __init__(
        self,
        cache: Path,
        *,
        hub_cache: Path | None = None,
        hub_endpoint: str | None = None,
        progress: Progress = _quiet,
    ) -> None:
        self._cache = cache
        self._hub_cache = hub_cache
        self._hub_endpoint = hub_endpoint
        self._progress = progress

    def get(self, model_id: str, *, revision: str | None = None) -> LocalModel:
        """The model as a complete folder of this machine; downloads what is not there.

        model_id: a folder, a hub id, or s3://bucket/prefix. revision: for the hub only.
        """
        return self._source(model_id, revision).fetch(self._progress)

    def inspect(self, model_id: str, *, revision: str | None = None) -> ModelHeader:
        """What config.json and the safetensors' headers say; downloads nothing else."""
        source = self._source(model_id, revision)
        return read_header(source)

    def put(self, folder: Path, target: str) -> None:
        """Copy a folder to a new folder, or upload it under s3://bucket/prefix."""
        if not folder.is_dir():
            raise ModelError(f"{folder}: there is no such folder to copy from")
        if target.startswith("s3://"):
            put_s3(folder, s3_prefix(target), self._progress)
        elif "://" in target:
            raise ModelError(f"can't put a model to {target}: give a folder or s3://bucket/prefix")
        else:
            put_local(folder, Path(target).expanduser(), self._progress)

    def _source(self, model_id: str, revision: str | None) -> Source:
        at = place_of(model_id)
        if revision is not None and not isinstance(at, HubModel):
            raise ModelError(
                f"model {model_id!r} has no revisions ({revision!r} was asked for): only models "
                "of the hub have"
            )
        match at:
            case Folder(path):
                return LocalSource(path)
            case HubModel(repo):
                return HubSource(repo, revision, self._hub_cache, self._hub_endpoint)
            case S3Prefix():
                return S3Source(at, self._cache)
