"""A user's Python file becomes a module: executed once in a process, however often it is asked for.

`sys.modules` is what remembers it, under a name made of the file's path. The rule to keep: whoever
needs something of a model.py (its handler, its formatters, an adapter's formatters) comes here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType

from lmi.core import ConfigError, ModelError

MODEL_FILE = "model.py"

log = logging.getLogger("lmi.custom")

# Reentrant: a model.py may ask for another file while it is executed.
_lock = threading.RLock()

_OPTION = "option.entryPoint"
_SOURCE = "the model's options"


def load_module(folder: Path, entry_point: str, namespace: str | None = None) -> ModuleType:
    """The module that an entry point names.

    entry_point: an absolute path, `x.py` in the folder, or an importable module's name. namespace:
    keeps files of one name apart, such as those of adapters. Raises ConfigError for an entry point
    that can't be meant, and ModelError, after the traceback was logged, where its code fails.
    """
    if re.match(r"[a-z][a-z0-9+.-]*://", entry_point):
        raise ConfigError(
            _OPTION,
            entry_point,
            _SOURCE,
            "code is not fetched from the network when a model is loaded: put the file into the "
            "model's folder and name it",
        )
    if not entry_point.endswith(".py") and not Path(entry_point).is_absolute():
        return _import(entry_point)
    path = find_file(folder, entry_point)
    name = _module_name(path, namespace)
    with _lock:
        known = sys.modules.get(name)
        return known if known is not None else _execute(path, name)


def find_file(folder: Path, entry_point: str) -> Path:
    """The file that an entry point names; raises ConfigError where it can't be used."""
    named = Path(entry_point)
    # By name, not by link: whoever can put a link into the folder can put code there.
    path = Path(os.path.normpath(folder.absolute() / named))
    if not named.is_absolute() and not path.is_relative_to(os.path.normpath(folder.absolute())):
        raise ConfigError(
            _OPTION, entry_point, _SOURCE, f"expected a file inside the model's folder {folder}"
        )
    if not path.is_file():
        raise ConfigError(_OPTION, entry_point, _SOURCE, f"there is no file {path}")
    return path.resolve()


def _module_name(path: Path, namespace: str | None) -> str:
    digest = hashlib.md5(str(path).encode(), usedforsecurity=False).hexdigest()[:8]
    if namespace is None:
        return f"model_{digest}"
    return f"ns_{re.sub(r'[-.]', '_', namespace)}_{digest}"


def _execute(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(_OPTION, str(path), _SOURCE, "expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:  # its neighbours are importable, after everything that is installed
        sys.path.append(folder)
    sys.modules[name] = module  # before it runs: its classes must be found while it does
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's code may raise
        del sys.modules[name]
        log.exception("%s failed", path)
        raise ModelError(f"{_where(path, error)}: {_said(error)}") from error
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigError(
                _OPTION,
                name,
                _SOURCE,
                "there is no such module; expected a file in the model's folder (x.py) or an "
                "installed module",
            ) from error
        log.exception("%s failed", name)
        raise ModelError(f"{name}: {_said(error)}") from error
    except (Exception, SystemExit) as error:  # whatever a user's code may raise
        log.exception("%s failed", name)
        raise ModelError(f"{name}: {_said(error)}") from error


def _where(path: Path, error: BaseException) -> str:
    """The user's file with the line that an error came through last."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _said(error: BaseException) -> str:
    """The exception as one line."""
    lines = traceback.format_exception_only(error)
    return " ".join(lines[-1].split())
