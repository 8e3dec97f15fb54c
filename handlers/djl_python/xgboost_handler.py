"""The handler of XGBoost models."""

from lmi.custom.stock.xgboost import (
    handle,
    service,
)

__all__ = [
    "handle",
    "service",
]
