"""What loading a model for a task gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

# Takes inputs and a request's parameters, gives one result for each input.
Predict = Callable[..., list[Any]]


class Loaded(NamedTuple):
    """A model and what answers with it. pipeline: transformers' own, where there is one."""

    predict: Predict
    model: Any
    tokenizer: Any
    pipeline: Any = None
