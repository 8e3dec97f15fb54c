"""Marks for functions that read a request, and the header that names an adapter."""

from lmi.custom.api.decorators import init_handler, input_formatter, prediction_handler
from lmi.custom.api.request_io import RequestInput, TextInput

__all__ = [
    "SAGEMAKER_ADAPTER_IDENTIFIER_HEADER",
    "RequestInput",
    "TextInput",
    "init_handler",
    "input_formatter",
    "prediction_handler",
]

SAGEMAKER_ADAPTER_IDENTIFIER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
