"""Handlers that come along: pipelines of transformers, scikit-learn and XGBoost models.

Each is a module with a `handle(inputs)` that a worker runs like a user's model.py. What it is told
are the options of the initialise call, as text.
"""

from __future__ import annotations

from typing import Final, NoReturn

STOCK: Final[dict[str, str]] = {
    "djl_python.deepspeed": "lmi.custom.stock.deepspeed",
    "djl_python.huggingface": "lmi.custom.stock.huggingface",
    "djl_python.sklearn_handler": "lmi.custom.stock.sklearn",
    "djl_python.xgboost_handler": "lmi.custom.stock.xgboost",
}
"""Stock entry points that are handlers, and the module of each. The other names that users know
mean an engine (`lmi_vllm`, `lmi_trtllm`, `tensorrt_llm`), or are in `REFUSED`."""

_NEURON: Final = "AWS Neuron devices are not supported: use a GPU or CPU instance"
_DIFFUSION: Final = (
    "image generation is not supported: models that generate text are, and pipelines"
)

REFUSED: Final[dict[str, str]] = {
    "djl_python.transformers_neuronx": _NEURON,
    "djl_python.optimum_neuron": _NEURON,
    "djl_python.stable_diffusion_inf2": _NEURON,
    "djl_python.stable-diffusion": _DIFFUSION,
    "djl_python.fastertransformer": "FasterTransformer has ended: leave option.entryPoint out",
    "djl_python.seq_scheduler": "its requests are an engine's: set option.rolling_batch",
    "djl_python.sagemaker": (
        "the format of SageMaker's model builder is pickled objects: give the model as files "
        "(safetensors, skops), with a model.py where it needs one"
    ),
}
"""Stock entry points that are refused, and why."""


def refuse(name: str) -> NoReturn:
    """Raise ImportError with the reason why a stock module is refused."""
    raise ImportError(f"{name} is refused: {REFUSED[name]}", name=name)
