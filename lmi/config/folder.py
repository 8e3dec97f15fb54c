"""What a model's folder tells before anything is loaded: its config.json and its model.py."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from typing import Literal

from lmi.core import ConfigError

# In the reference's order; the last is Mistral's own form.
_MODEL_CONFIGS = ("config.json", "adapter_config.json", "model_index.json", "params.json")
Classic = Literal["sklearn", "xgboost"]
"""Libraries whose models are served by a stock handler of their own."""

_CLASSIC: Mapping[Classic, tuple[str, ...]] = {
    "sklearn": (".skops", ".joblib", ".pkl", ".pickle", ".cloudpkl"),
    "xgboost": (".xgb", ".bst", ".ubj"),
}
_WEIGHTS = ("*.safetensors", "*.gguf")


@dataclass(frozen=True, slots=True)
class Folder:
    """A model's folder.

    model: its config.json, None where there is none. has_model: it holds a model's files.
    classic: the library of a model that is one of sklearn or XGBoost. model_py: there is a
    model.py. names: what its top level binds; None where only running it would tell.
    """

    path: Path
    model: Mapping[str, object] | None
    has_model: bool
    classic: Classic | None
    model_py: bool
    names: frozenset[str] | None


def descend(path: Path) -> Path:
    """The folder itself, or its only child where that is a folder too.

    Names with a leading dot don't count. Raises ConfigError where `path` is no readable folder.
    """
    try:
        children = [child for child in path.iterdir() if not child.name.startswith(".")]
    except NotADirectoryError:
        raise ConfigError("FOLDER", str(path), "the command line", "expected a folder") from None
    except OSError as error:
        want = f"expected a readable folder: {error.strerror}"
        raise ConfigError("FOLDER", str(path), "the command line", want) from error
    if len(children) == 1 and isdir(children[0]):
        return children[0]
    return path


def look(path: Path) -> Folder:
    """Reads what the folder tells. Raises ConfigError for a config.json that is no JSON object."""
    config = next((path / name for name in _MODEL_CONFIGS if isfile(path / name)), None)
    model = None if config is None else read_model(config)
    classic = next(
        (
            library
            for library, suffixes in _CLASSIC.items()
            if any(isfile(path / f"model{suffix}") for suffix in suffixes)
        ),
        None,
    )
    weights = any(True for pattern in _WEIGHTS for _ in path.glob(pattern))
    model_py = isfile(path / "model.py")
    names = _top_level_names(path / "model.py") if model_py else frozenset[str]()
    return Folder(path, model, config is not None or weights, classic, model_py, names)


def read_model(path: Path) -> Mapping[str, object]:
    """A model's config.json. Raises ConfigError where it can't be read as a JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        want = f"expected a readable file: {error.strerror}"
        raise ConfigError(path.name, None, str(path), want) from error
    except ValueError as error:
        raise ConfigError(path.name, None, str(path), f"expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(path.name, None, str(path), "expected a JSON object")
    return found


def _top_level_names(path: Path) -> frozenset[str] | None:
    """Names that a module binds outside functions, by reading it.

    None where only running it would tell: a star import, or text that is no Python.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None
    names: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    return None
                names.add(alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            )
        else:
            pending += ast.iter_child_nodes(node)
    return frozenset(names)
