"""The base class of users' own rolling batches."""

from lmi.custom.api.rolling_batch import (
    FINISH_REASON_MAPPER,
    RollingBatch,
    filter_unused_generation_params,
    stop_on_any_exception,
)

__all__ = [
    "FINISH_REASON_MAPPER",
    "RollingBatch",
    "filter_unused_generation_params",
    "stop_on_any_exception",
]
