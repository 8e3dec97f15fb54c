"""What scripts ask of a request's parameters, and small helpers."""

from lmi.custom.api.parameters import (
    is_beam_search,
    is_best_of,
    is_multiple_sequences,
    is_streaming,
)
from lmi.custom.api.profiling import profile_objects
from lmi.custom.api.rolling_output import rolling_batch_inference
from lmi.custom.stock.files import find_model_file

__all__ = [
    "find_model_file",
    "is_beam_search",
    "is_best_of",
    "is_multiple_sequences",
    "is_streaming",
    "profile_objects",
    "rolling_batch_inference",
]
