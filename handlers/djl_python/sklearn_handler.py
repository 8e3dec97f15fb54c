"""The handler of scikit-learn models."""

from lmi.custom.stock.sklearn import SklearnHandler, handle, service

__all__ = ["SklearnHandler", "handle", "service"]
