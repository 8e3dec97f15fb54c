"""A task's model as DeepSpeed leaves it, on one rank or several.

DeepSpeed changes a model in place: it divides the layers among ranks (AutoTP), or puts its own CUDA
kernels in. Where it is mistaken the model runs and answers nonsense, so a model is asked, not
believed: its output for a few tokens is compared before and after. Kernels that fail, or answer
otherwise, are left out, and the model is read again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from lmi.core import ModelError
from lmi.custom.stock import tasks
from lmi.custom.stock.deepspeed_options import DeepSpeedOptions
from lmi.custom.stock.hf_options import Dtype, HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded
from lmi.engines.deepspeed.injection import decide

log = logging.getLogger(__name__)

# Relative difference of outputs that rounding in another order explains.
_TOLERANCE: Final[dict[Dtype, float]] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2}
_PROBE_TOKENS: Final = 6
# For all ranks to have read the model; a sum that takes longer fails on every rank.
_PATIENCE: Final = timedelta(minutes=10)


def gpus() -> int:
    """How many GPUs this process sees."""
    import torch

    return int(torch.cuda.device_count())


def seed(number: int) -> None:
    """Begin the random numbers anew, on every device."""
    import torch

    torch.manual_seed(number)


def default_dtype() -> Dtype:
    """The type that is best on this device."""
    import torch

    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def join(rank: int, degree: int, meeting: str) -> None:
    """Make this process one of a model's ranks. meeting: a file that none of them has made.

    On a processor their sums go through gloo: unlike DeepSpeed's operator it is there at once, and
    notices a rank that ends.
    """
    import torch
    import torch.distributed as dist

    from lmi.engines.deepspeed.call import library, submodule

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE")
    os.environ |= dict(zip(names, map(str, (rank, rank, degree, degree)), strict=True))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    library(kind)
    setattr(submodule("deepspeed.comm.torch"), "build_shm_op", lambda: None)  # noqa: B010 - untyped
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=degree,
        timeout=_PATIENCE,
    )


def load(
    task: str, settings: HuggingFaceOptions, dtype: Dtype, told: DeepSpeedOptions, degree: int
) -> Loaded:
    """A model for a task, in a dtype. Raises ConfigError or ModelError.

    degree: with more than one, every rank calls this after `join`.
    """
    loaded = tasks.load(task, settings)
    kernels, why = _kernels(loaded.model, told, degree)
    if kernels:
        try:
            _rebuild(loaded.model, dtype, told, degree, kernels=True)
        except ModelError as error:
            why = str(error)
            loaded = tasks.load(task, settings)
        else:
            log.info("DeepSpeed's kernels compute: %s", why)
            return loaded
    log.info("DeepSpeed's kernels are not used: %s", why)
    _rebuild(loaded.model, dtype, told, degree, kernels=False)
    return loaded


def _kernels(model: Any, told: DeepSpeedOptions, degree: int) -> tuple[bool, str]:
    """Whether DeepSpeed's kernels shall compute, and why."""
    if model.can_generate():
        return False, "they keep K and V for themselves, which transformers' generate can't know"
    if degree > 1:
        return False, "AutoTP divides the model among ranks"
    asked = told.settings.kernel_inject
    decided = decide(model.config.model_type, model.device.type, paged=False, asked=asked)
    return decided.inject, decided.reason


def _rebuild(
    model: Any, dtype: Dtype, told: DeepSpeedOptions, degree: int, *, kernels: bool
) -> None:
    """Let DeepSpeed change a model, and ask it. Raises ModelError."""
    import torch

    from lmi.engines.deepspeed.call import init_inference

    asked = _probe(model)
    before = _answer(model, asked)
    rebuilt = init_inference(
        model,
        dtype=getattr(torch, dtype),
        device=model.device.type,
        degree=degree,
        inject=kernels,
        further={
            "max_out_tokens": told.settings.max_tokens,
            "return_tuple": told.settings.return_tuple,
            "triangular_masking": told.triangular_masking,
        },
    )
    if rebuilt is not model:
        raise ModelError(f"DeepSpeed makes another model of {type(model).__name__}, not this one")
    try:
        after = _answer(model, asked)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        # Layers of DeepSpeed's that don't fit the rest of the model end in any of these.
        raise ModelError(
            f"{type(model).__name__} can't compute what DeepSpeed made of it: {error}"
        ) from error
    difference = float((after - before).norm() / before.norm().clamp_min(1e-6))
    log.info("DeepSpeed changes the output by %.1e (relative)", difference)
    if not difference <= _TOLERANCE[dtype]:
        raise ModelError(
            f"DeepSpeed changes the output of {type(model).__name__} by {difference:.1e}; "
            "expected option.tensor_parallel_degree=1, or engine=Python"
        )


def _probe(model: Any) -> dict[str, Any]:
    """A few tokens, as the model takes them."""
    import torch

    settings = model.config
    ids = torch.arange(3, 3 + _PROBE_TOKENS, device=model.device) % settings.vocab_size
    if isinstance(settings.eos_token_id, int):  # some classifiers look for the last of them
        ids[-1] = settings.eos_token_id
    found = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    if settings.is_encoder_decoder:
        found["decoder_input_ids"] = ids[None]
    return found


def _answer(model: Any, asked: Mapping[str, Any]) -> Any:
    """The model's first output, on the processor in float32."""
    import torch

    with torch.inference_mode():
        return model(**asked)[0].float().cpu()
