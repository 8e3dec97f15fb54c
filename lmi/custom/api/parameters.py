"""What a request's parameters ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_best_of(parameters: Mapping[str, Any]) -> bool:
    """Several answers are generated, of which the best are given."""
    return int(parameters.get("best_of") or 1) > 1 or int(parameters.get("n") or 1) > 1


def is_beam_search(parameters: Mapping[str, Any]) -> bool:
    """The answer comes of a search with beams."""
    return int(parameters.get("num_beams") or 1) > 1


def is_multiple_sequences(parameters: Mapping[str, Any]) -> bool:
    """More than one sequence grows, whatever for."""
    return is_best_of(parameters) or is_beam_search(parameters)


def is_streaming(parameters: Mapping[str, Any]) -> bool:
    """The answer is to come as it grows."""
    value = parameters.get("stream", False)
    return value is True or str(value).lower() == "true"
