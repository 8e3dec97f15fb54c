"""The handler of XGBoost models."""

from lmi.custom.stock.xgboost import XGBoostHandler, handle, service

__all__ = ["XGBoostHandler", "handle", "service"]
