"""Users' modules, loaded and called."""

from lmi.custom.api.service import (
    ModelService,
    get_annotated_function,
    has_function_in_module,
    load_model_service,
)

__all__ = [
    "ModelService",
    "get_annotated_function",
    "has_function_in_module",
    "load_model_service",
]
