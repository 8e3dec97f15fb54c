"""Pairs of key and value in order."""

from lmi.custom.api.pair_list import (
    PairList,
)

__all__ = [
    "PairList",
]
