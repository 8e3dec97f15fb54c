"""Models on the Hugging Face hub, through huggingface_hub and its own cache.

That cache is made for several processes (a lock per file, content under its digest, snapshots of
links), and other programs of the machine share it; so there is nothing of ours around it. HF_TOKEN,
HF_HOME, HF_HUB_OFFLINE and the proxies' variables are read by that library.
"""

from __future__ import annotations

import glob
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lmi.models.hub_errors import hub_errors
from lmi.models.hub_progress import progress_bars
from lmi.models.names import safe_name, wanted
from lmi.models.placing import disk_errors, need_space
from lmi.models.source import LocalModel, Progress, StoredFile

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision

PARALLEL_FILES = 8
READ_TIMEOUT_SECONDS = 30.0  # for a part of a file: headers, a few megabytes at most


class HubSource:
    """A repository of the hub at a revision.

    revision: a branch, a tag or a commit; None for the main branch. cache: where snapshots are
    kept; None for huggingface_hub's own folder. endpoint: another hub than its default.
    """

    def __init__(
        self, repo: str, revision: str | None, cache: Path | None, endpoint: str | None
    ) -> None:
        self._repo = repo
        self._revision = revision
        self._cache = cache
        self._endpoint = endpoint

    def __str__(self) -> str:
        return f"{self._repo} at revision {self._revision}" if self._revision else self._repo

    def files(self) -> tuple[StoredFile, ...]:
        return self._files

    def read(self, file: StoredFile, start: int, length: int) -> bytes:
        if (cached := self._cached(file)) is not None:
            with disk_errors("read", cached), cached.open("rb") as opened:
                opened.seek(start)
                return opened.read(length)
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, no __all__
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        with hub_errors(str(self)):
            reply = get_session().get(
                hf_hub_url(
                    self._repo,
                    file.name,
                    revision=self._commit.resolved,
                    endpoint=self._endpoint,
                ),
                headers={**build_hf_headers(), "Range": f"bytes={start}-{start + length - 1}"},
                follow_redirects=True,
                timeout=READ_TIMEOUT_SECONDS,
            )
            hf_raise_for_status(reply)
            content: bytes = reply.content
        return content

    def fetch(self, progress: Progress) -> LocalModel:
        from huggingface_hub import snapshot_download

        files = self._files
        total = sum(file.size for file in files)
        missing = sum(file.size for file in files if self._cached(file) is None)
        if missing:
            need_space(self._cache_folder(), missing)
        with hub_errors(str(self)):
            path = snapshot_download(
                self._repo,
                revision=self._commit,
                cache_dir=self._cache,
                endpoint=self._endpoint,
                allow_patterns=[glob.escape(file.name) for file in files],
                max_workers=PARALLEL_FILES,
                tqdm_class=progress_bars(
                    progress, f"downloading {self._repo}", total - missing, total
                ),
            )
        return LocalModel(Path(path), self._commit.resolved, tuple(file.name for file in files))

    @cached_property
    def _commit(self) -> ResolvedRevision:
        """What the revision is now; what it was last where the hub is out of reach."""
        from huggingface_hub import HfApi

        with hub_errors(str(self)):
            return HfApi(endpoint=self._endpoint).resolve_revision(
                self._repo, revision=self._revision, cache_dir=self._cache
            )

    @cached_property
    def _files(self) -> tuple[StoredFile, ...]:
        """A commit never changes: what an earlier download listed is not asked for again."""
        from huggingface_hub import HfApi, RepoFile, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        with hub_errors(str(self)):
            try:
                tree = get_cached_repo_tree(
                    self._repo, revision=self._commit, cache_dir=self._cache
                )
            except CachedRepoTreeNotFoundError:
                entries = HfApi(endpoint=self._endpoint).list_repo_tree(
                    self._repo, recursive=True, revision=self._commit.resolved
                )
                tree = [entry for entry in entries if isinstance(entry, RepoFile)]
        listed = [StoredFile(safe_name(file.path, str(self)), file.size) for file in tree]
        return wanted(listed, str(self))

    def _cached(self, file: StoredFile) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self._repo, file.name, cache_dir=self._cache, revision=self._commit.resolved
        )
        return Path(found) if isinstance(found, str) else None

    def _cache_folder(self) -> Path:
        from huggingface_hub import constants

        folder = self._cache or Path(constants.HF_HUB_CACHE)
        with disk_errors("write", folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder
