"""`deepspeed.init_inference`, with what it does beside rebuilding a model taken back.

It casts every number to one dtype, also the rotary buffers that transformers keeps in float32 (in
bfloat16 that alone changes the logits by 4 to 6 percent of their spread); it prints; it may change
torch's default dtype and the levels of loggers.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

import torch

from lmi.core import ModelError

log = logging.getLogger("lmi.engines.deepspeed")

_QUANTISED: Final = "is_quantized"  # transformers' mark


def release() -> str:
    """The version of DeepSpeed that is installed."""
    return version("deepspeed")


def library(device: str) -> ModuleType:
    """The module `deepspeed`, for models on `device` (cpu or cuda); quiet below warnings."""
    os.environ.setdefault("DS_ACCELERATOR", device)
    with quiet():
        return import_module("deepspeed")


def init_inference(
    model: Any,
    *,
    dtype: torch.dtype,
    device: str,
    degree: int = 1,
    inject: bool = False,
    further: Mapping[str, Any] = {},
) -> Any:
    """The model as DeepSpeed rebuilds it, in place: at degree 1 without injection, unchanged.

    further: other arguments of `init_inference`. Where degree is above 1 the ranks' process group
    must be there (`lmi.engines.deepspeed.sums`). Raises ModelError for what it can't rebuild.
    """
    deepspeed = library(device)
    arguments = {
        "dtype": dtype,
        "tensor_parallel": {"tp_size": degree},
        "replace_with_kernel_inject": inject,
        **further,
    }
    with _as_before(model, dtype), quiet():
        try:
            engine = deepspeed.init_inference(model, **arguments)
        except (
            AssertionError,  # DeepSpeed's word for a model that it does not know
            AttributeError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
            words = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"DeepSpeed {release()} can't rebuild a model of type {kind}: {words}"
            ) from error
    return engine.module


@contextmanager
def _as_before(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Give back what is cast although the model keeps it in a dtype of its own, torch's default
    dtype, and the levels of loggers."""
    kept: list[tuple[torch.nn.Module, str, torch.Tensor]] = [
        (module, name, tensor.detach().clone())
        for module in model.modules()
        for own in (module._buffers, module._parameters)
        for name, tensor in own.items()
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != dtype
    ]
    # Models with quantised layers refuse the cast, of which those layers take no notice.
    quantised = getattr(model, _QUANTISED, False)
    if quantised:
        setattr(model, _QUANTISED, False)
    default = torch.get_default_dtype()
    levels = {name: logging.getLogger(name).level for name in (None, "DeepSpeed")}
    try:
        yield
    finally:
        torch.set_default_dtype(default)
        if quantised:
            setattr(model, _QUANTISED, True)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for module, name, tensor in kept:
            place = module._buffers if name in module._buffers else module._parameters
            now = place.get(name)
            if now is not None and now.shape == tensor.shape:
                now.data = tensor.to(now.device)


@contextmanager
def quiet() -> Iterator[None]:
    """What is printed goes to our log, for those who look closely."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            log.debug("%s", line)


def submodule(name: str) -> ModuleType:
    """A module of deepspeed by its full name.

    Not by an import statement: the package's `comm` hides its module `torch` behind the real one.
    """
    return sys.modules[name]
