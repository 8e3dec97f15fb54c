"""Models under a prefix of an S3 bucket, through boto3.

Credentials, region and endpoint come from where boto3 takes them (AWS_* variables, profiles, the
instance's role). A download is kept under a name made of the listing's digest: content that changes
in the bucket is fetched anew, content that did not is not, and servers share what is there.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmi.core import ModelError
from lmi.models.local import LocalSource
from lmi.models.names import safe_name, wanted
from lmi.models.place import S3Prefix
from lmi.models.placing import Stage, disk_errors, need_space, place
from lmi.models.s3_errors import s3_errors
from lmi.models.source import LocalModel, Progress, StoredFile

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig

S3Client = Any  # boto3 makes the class at run time

PARALLEL_FILES = 4
CONNECTIONS_PER_FILE = 8  # large files come in parts
ATTEMPTS = 5
CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
DIGEST_LENGTH = 20  # hexadecimal digits in a folder's name: 80 bits


class S3Source:
    """All keys under a prefix. cache: the folder in which downloads are kept."""

    def __init__(self, at: S3Prefix, cache: Path) -> None:
        self._at = at
        self._cache = cache

    def __str__(self) -> str:
        return str(self._at)

    def files(self) -> tuple[StoredFile, ...]:
        return self._listing[0]

    def read(self, file: StoredFile, start: int, length: int) -> bytes:
        if start >= file.size or not length:
            return b""
        with s3_errors(self._at):
            reply = self._client.get_object(
                Bucket=self._at.bucket,
                Key=self._at.prefix + file.name,
                Range=f"bytes={start}-{start + length - 1}",
            )
            body: bytes = reply["Body"].read()
        return body

    def fetch(self, progress: Progress) -> LocalModel:
        files, digest = self._listing
        # The last part of the prefix is for people who look into the cache.
        label = self._at.prefix.rstrip("/").rpartition("/")[2] or self._at.bucket
        final = self._cache / "s3" / f"{label[:80]}-{digest}"

        def fill(stage: Stage) -> None:
            missing = [file for file in files if not stage.has(file.name, file.size)]
            need_space(stage.files, sum(file.size for file in missing))
            done = sum(file.size for file in files) - sum(file.size for file in missing)
            total = sum(file.size for file in files)

            def bring(index: int, file: StoredFile, count: _Counter) -> None:
                incoming = stage.incoming / str(index)
                self._client.download_file(
                    self._at.bucket,
                    self._at.prefix + file.name,
                    str(incoming),
                    Callback=count.add_unless_stopped,
                    Config=_transfer(),
                )
                if (got := incoming.stat().st_size) != file.size:
                    raise ModelError(
                        f"{self}{file.name}: {got} bytes came where {file.size} were listed; "
                        "it changed in the bucket meanwhile: try again"
                    )
                stage.finish(incoming, file.name)

            phase = f"downloading {self._at}"
            with s3_errors(self._at):
                _each(missing, bring, _Counter(progress, phase, done, total))

        place(final, fill, progress)
        return LocalModel(final, digest, tuple(file.name for file in files))

    @cached_property
    def _client(self) -> S3Client:
        return s3_client()

    @cached_property
    def _listing(self) -> tuple[tuple[StoredFile, ...], str]:
        """The wanted files, and a digest of everything that fixes their content."""
        sha = hashlib.sha256(str(self._at).encode())
        found: list[StoredFile] = []
        with s3_errors(self._at):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._at.bucket, Prefix=self._at.prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    name = entry["Key"].removeprefix(self._at.prefix)
                    if not name or name.endswith("/"):
                        continue  # the consoles' marks for empty folders
                    found.append(StoredFile(safe_name(name, str(self)), entry["Size"]))
                    sha.update(f"\0{name}\0{entry['Size']}\0{entry['ETag']}".encode())
        if not found:
            raise ModelError(
                f"{self} holds no files: give the bucket and the prefix under which the model's "
                "config.json is (an archive must be unpacked first)"
            )
        return wanted(found, str(self)), sha.hexdigest()[:DIGEST_LENGTH]


def put_s3(folder: Path, at: S3Prefix, progress: Progress) -> None:
    """Upload a folder. `config.json` goes last: a reader sees no model before it is whole."""
    client = s3_client()
    files = LocalSource(folder).files()
    count = _Counter(progress, f"uploading {at}", 0, sum(file.size for file in files))

    def send(_: int, file: StoredFile, count: _Counter) -> None:
        client.upload_file(
            str(folder / file.name),
            at.bucket,
            at.prefix + file.name,
            Callback=count.add,
            Config=_transfer(),
        )

    with s3_errors(at), disk_errors("read", folder):
        _each([file for file in files if file.name != "config.json"], send, count)
        _each([file for file in files if file.name == "config.json"], send, count)


def s3_client() -> S3Client:
    """A client with time-outs and retries, configured as boto3 always is."""
    import boto3
    from botocore.config import Config

    # A session of its own: boto3's shared one keeps the first credentials that it finds.
    return boto3.Session().client(
        "s3",
        config=Config(
            max_pool_connections=PARALLEL_FILES * CONNECTIONS_PER_FILE,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
        ),
    )


class _Stopped(Exception):
    """Ends the transfers that go on after another failed."""


class _Counter:
    """Adds up bytes from the threads of all transfers; each adds a piece's size."""

    def __init__(self, progress: Progress, phase: str, done: int, total: int) -> None:
        self._progress = progress
        self._phase = phase
        self._done = done
        self._total = total
        self._lock = threading.Lock()
        self._stopped = False
        progress(phase, done, total)

    def add_unless_stopped(self, size: int) -> None:
        """For downloads: ends a transfer in its middle."""
        if self._stopped:
            raise _Stopped
        self.add(size)

    def add(self, size: int) -> None:
        """For uploads, which end with their file: s3transfer would leave it open else."""
        with self._lock:
            self._done += size
            # A part that is tried again is counted again.
            self._progress(self._phase, min(self._done, self._total), self._total)

    def stop(self) -> None:
        self._stopped = True


def _each(
    files: Sequence[StoredFile],
    work: Callable[[int, StoredFile, _Counter], None],
    count: _Counter,
) -> None:
    """Work on all files, several at a time; the first failure ends the others."""
    with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="lmi-s3") as pool:
        futures = [pool.submit(work, index, file, count) for index, file in enumerate(files)]
        done = False
        try:
            for future in as_completed(futures):
                future.result()
            done = True
        finally:
            if not done:
                count.stop()
                pool.shutdown(wait=False, cancel_futures=True)


def _transfer() -> TransferConfig:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(max_concurrency=CONNECTIONS_PER_FILE)
