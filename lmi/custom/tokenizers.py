"""The model's tokenizer for users' formatters: transformers', loaded only where one is used."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


class LazyTokenizer:
    """Stands for a tokenizer of transformers until something of it is wanted.

    Importing transformers takes seconds, and most formatters name a tokenizer that they never use.
    """

    def __init__(self, folder: Path | None, trust_remote_code: bool) -> None:
        """folder: the model's; None where there is none, and using it raises RuntimeError."""
        self._folder = folder
        self._trust_remote_code = trust_remote_code
        self._loaded: Any = None

    @property
    def there(self) -> bool:
        """Whether there is a model that may have one."""
        return self._folder is not None

    def load(self) -> Any:
        """The tokenizer itself."""
        if self._loaded is None:
            if self._folder is None:
                raise RuntimeError("the model has no tokenizer")
            from transformers import AutoTokenizer

            self._loaded = AutoTokenizer.from_pretrained(
                self._folder, trust_remote_code=self._trust_remote_code
            )
        return self._loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.load()(*arguments, **named)

    def __len__(self) -> int:
        return len(self.load())


def uses(function: Callable[..., Any], name: str) -> bool:
    """Whether a function reads its parameter of this name, or looks it up in its `kwargs`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return False
    reads = any(
        each.argval == name and each.opname.startswith("LOAD_")
        for each in dis.get_instructions(code)
    )
    return reads or name in code.co_consts
