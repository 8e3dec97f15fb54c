"""Marks that tell what a function of a user's model.py is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def _mark(function: F, name: str) -> F:
    setattr(function, name, True)
    return function


def input_formatter(function: F) -> F:
    """Turns a client's request into the model's: called before a built-in handler parses it."""
    return _mark(function, "is_input_formatter")


def output_formatter(function: F) -> F:
    """Turns what the model brought into the client's answer."""
    return _mark(function, "is_output_formatter")


def prediction_handler(function: F) -> F:
    """`(X, model, **kwargs)`: predicts with the model that was loaded."""
    return _mark(function, "is_prediction_handler")


def init_handler(function: F) -> F:
    """`(model_dir, **kwargs) -> model`: loads the model."""
    return _mark(function, "is_init_handler")
