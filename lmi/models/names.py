"""Names of files from outside: which are safe to write, and which of a listing are wanted. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lmi.core import ModelError
from lmi.models.source import StoredFile

# Formats whose loading can run code of whoever wrote the file.
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# The same weights once more, for other programs than ours.
OTHER_FORMATS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".gguf", ".tflite", ".mlmodel")


def safe_name(name: str, origin: str) -> str:
    """`name` itself if it stays inside the folder it is joined to.

    Raises ModelError for an absolute one, one with `..`, `.` or empty parts, a backslash or NUL.
    """
    parts = name.split("/")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\\" in name or "\0" in name:
        raise ModelError(
            f"{origin} holds the file name {name!r}, which would be written outside the model's "
            "folder or can't be written: rename it there"
        )
    return name


def wanted(files: Sequence[StoredFile], origin: str) -> tuple[StoredFile, ...]:
    """The files that serve a model, sorted: safetensors once, no pickle, no other formats.

    A listing with a `model.py` (its own code reads what it likes) or without a `config.json` (not
    a transformers model) is taken whole. Raises ModelError where the weights are pickled only.
    """
    names = {file.name for file in files}
    ordered = sorted(files, key=lambda file: file.name)
    if "model.py" in names or "config.json" not in names:
        return tuple(ordered)
    pickled = sorted(name for name in names if name.endswith(PICKLED))
    safe = {name for name in names if name.endswith(".safetensors")}
    if pickled and not safe:
        raise ModelError(
            f"{origin} has its weights as pickle only ({pickled[0]}), which can run any code when "
            "it is loaded: convert them to safetensors, or choose a revision that has them"
        )
    # Mistral's repositories hold everything twice: under its own names and under transformers'.
    twice = {name for name in safe if name.startswith("consolidated")}
    unwanted = twice if safe - twice else set()
    return tuple(
        file
        for file in ordered
        if file.name not in unwanted
        and not (safe and file.name.endswith((*PICKLED, *OTHER_FORMATS)))
    )
