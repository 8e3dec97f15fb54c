"""A model id says where a model is: a folder, the hub, or S3. Pure but for one look at the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lmi.core import ModelError

# The hub's own rule for names: owner/name or name, letters, digits, `-`, `_`, `.`.
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_HUB_NAME_LENGTH = 96
# The S3 user guide's rule for bucket names, and access point ARNs.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|arn:[\w:/-]+", re.ASCII)
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
WANTED = "give a folder, a hub id such as owner/name, or s3://bucket/prefix"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the Hugging Face hub, `owner/name` or `name`."""

    repo: str


@dataclass(frozen=True, slots=True)
class S3Prefix:
    """All keys under a prefix. prefix: ends in `/`, or is empty for a whole bucket."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


Place = Folder | HubModel | S3Prefix


def place_of(model_id: str) -> Place:
    """Where `model_id` is. A folder that exists wins over a hub id of the same name.

    Raises ModelError for a path that does not exist, an archive, and a scheme that is none of ours.
    """
    if model_id.endswith(_ARCHIVES):
        raise ModelError(f"model {model_id!r} is an archive: unpack it and give its folder")
    scheme, colon, rest = model_id.partition("://")
    if colon and scheme == "s3":
        return s3_prefix(model_id)
    if colon and scheme != "file":
        raise ModelError(f"model {model_id!r}: {scheme}:// is not supported; {WANTED}")
    path = Path(rest if colon else model_id).expanduser()
    if path.is_dir() and model_id:
        return Folder(path.absolute())
    if path.is_file():
        raise ModelError(f"model {model_id!r} is a file: give the folder that holds it")
    if colon or model_id.startswith(("/", ".", "~")):
        raise ModelError(f"model {model_id!r}: there is no such folder")
    if is_hub_name(model_id):
        return HubModel(model_id)
    raise ModelError(f"model {model_id!r} is no folder here and no name for the hub; {WANTED}")


def is_hub_name(text: str) -> bool:
    """Whether the hub could have a repository of this name."""
    return (
        len(text) <= _HUB_NAME_LENGTH
        and _HUB_NAME.fullmatch(text) is not None
        and "--" not in text
        and ".." not in text
        and not text.endswith((".git", "-", "."))
    )


def s3_prefix(url: str) -> S3Prefix:
    """Read `s3://bucket/prefix`; the prefix is taken as a folder."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ModelError(f"model {url!r}: {bucket!r} can't be a bucket; give s3://bucket/prefix")
    prefix = prefix.strip("/")
    return S3Prefix(bucket, f"{prefix}/" if prefix else "")
