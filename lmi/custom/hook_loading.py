"""A user's file becomes the hooks of an engine: found, checked, and none where there are none."""

from __future__ import annotations

import os
import sys
from typing import Final

from lmi.core import ConfigError
from lmi.custom.formatters import InputFormatter, OutputFormatter
from lmi.custom.hooks import Hooks, HooksSpec
from lmi.custom.loading import load_module
from lmi.custom.marks import marked
from lmi.custom.requirements import default_cache, install
from lmi.custom.signatures import check_takes, is_asynchronous, where
from lmi.custom.spec import silent
from lmi.custom.tokenizers import LazyTokenizer

WANTED_HANDLE: Final = "handle(inputs: Input) -> Output | None, def or async def"


def load_hooks(spec: HooksSpec) -> Hooks | None:
    """The hooks of a model's folder; None where there are none.

    Executes the user's file, once in a process. Raises ConfigError for a function that can't be
    called as it must be, ModelError where the file fails.
    """
    if not (spec.folder / spec.entry_point).is_file():
        if spec.output_formatter is not None:
            raise ConfigError(
                "option.output_formatter",
                spec.output_formatter,
                str(spec.folder),
                f"there is no {spec.entry_point} that could have a function of this name",
            )
        return None
    if spec.requirements is not None:
        cache = spec.cache or default_cache(os.environ)
        sys.path.append(str(install(spec.requirements, sys.executable, cache, silent)))
    module = load_module(spec.folder, spec.entry_point)
    found = marked(module)
    if spec.output_formatter is not None:
        named = getattr(module, spec.output_formatter, None)
        if not callable(named):
            raise ConfigError(
                "option.output_formatter",
                spec.output_formatter,
                str(spec.folder / spec.entry_point),
                "there is no function of this name",
            )
        found["output_formatter"] = named
    handle = getattr(module, spec.handler, None)
    if callable(handle):
        check_takes(handle, 1, WANTED_HANDLE)
    formats_input = found.get("input_formatter")
    formats_output = found.get("output_formatter")
    for function in (formats_input, formats_output):
        if function is not None and is_asynchronous(function):
            raise ConfigError(
                function.__name__, None, where(function), "expected def, not async def"
            )
    tokenizer = LazyTokenizer(spec.tokenizer, spec.trust_remote_code)
    hooks = Hooks(
        spec,
        handle if callable(handle) else None,
        None
        if formats_input is None
        else InputFormatter.of(formats_input, spec.form, spec.properties, tokenizer),
        None if formats_output is None else OutputFormatter.of(formats_output, spec.form),
    )
    return hooks if hooks.described else None
