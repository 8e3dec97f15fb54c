"""The handler of transformers models."""

from lmi.custom.stock.huggingface import (
    HuggingFaceService,
    _service,
    handle,
    register_adapter,
    unregister_adapter,
    update_adapter,
)

__all__ = [
    "HuggingFaceService",
    "_service",
    "handle",
    "register_adapter",
    "unregister_adapter",
    "update_adapter",
]
