"""The handler of scikit-learn models."""

from lmi.custom.stock.sklearn import (
    handle,
    service,
)

__all__ = [
    "handle",
    "service",
]
