"""A user's functions are checked when they are loaded, by signature, not when they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from lmi.core import ConfigError

Function = Callable[..., Any]


def is_asynchronous(function: Function) -> bool:
    """Whether it is an `async def`, with or without `yield`."""
    if not inspect.isroutine(function):  # an object with a method of this kind
        function = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def check_takes(function: Function, count: int, want: str) -> None:
    """Raise ConfigError unless it can be called with so many positional arguments.

    want: the signature that would be right, such as `handle(inputs: Input) -> Output`.
    """
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*(None,) * count)
    except TypeError as error:
        raise _wrong(function, signature, want) from error


def check_named(function: Function, names: Sequence[Sequence[str]], want: str) -> None:
    """Raise ConfigError unless its parameters have these names, in order.

    names: for each parameter, the names that it may have.
    """
    signature = _signature(function)
    if signature is None:
        return
    given = list(signature.parameters)
    fits = len(given) == len(names) and all(
        name in allowed for name, allowed in zip(given, names, strict=True)
    )
    if not fits:
        raise _wrong(function, signature, want)


def where(function: Function) -> str:
    """A function's file and line, for people."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return getattr(function, "__module__", None) or "the model's code"
    return f"{code.co_filename}:{code.co_firstlineno}"


def _signature(function: Function) -> inspect.Signature | None:
    """None for what has none, such as some functions written in C."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _wrong(function: Function, signature: inspect.Signature, want: str) -> ConfigError:
    name = getattr(function, "__name__", type(function).__name__)
    return ConfigError(f"{name}{signature}", None, where(function), f"expected {want}")
