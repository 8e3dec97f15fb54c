"""DeepSpeed around a model of transformers: the only module of the handlers that imports it.

DeepSpeed changes the model in place: it divides the layers among ranks (AutoTP), or puts its own
CUDA kernels in. A model is asked, not believed: its output for a few tokens is compared before and
after. Each exception that the kernels' attempt may end with is DeepSpeed's own for "not here": with
them the caller loads the model again, without kernels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from lmi.core import ConfigError, ModelError
from lmi.custom.stock import options
from lmi.custom.stock.hf_options import Dtype

log = logging.getLogger(__name__)

# Relative difference of outputs that another order of summing explains, by the dtype's name.
_TOLERANCE: Final[dict[str, float]] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1}
_PROBE_TOKENS: Final = 6
# What `init_inference` and a first pass raise where kernels are missing, or don't fit a layer.
_NO_KERNELS: Final = (ValueError, RuntimeError, AttributeError, TypeError, AssertionError, KeyError)


_JOIN: Final = timedelta(minutes=10)  # for all ranks to have read the model; then it is hopeless


class NoKernels(Exception):
    """DeepSpeed's kernels don't serve this model; it is changed already, and of no more use."""


def gpus() -> int:
    """How many GPUs this process sees."""
    import torch

    return int(torch.cuda.device_count())


def seed(number: int) -> None:
    """Begin the random numbers anew, on every device."""
    import torch

    torch.manual_seed(number)


def join(rank: int, degree: int, meeting: str) -> None:
    """Make this process one of a model's ranks. meeting: a file that none of them has made.

    DeepSpeed's sums over shared memory break a process off unless LOCAL_SIZE is what they expect,
    and are compiled when they are first used: without a compiler they are left out.
    """
    import torch
    import torch.distributed as dist

    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE")
    os.environ |= dict(zip(names, map(str, (rank, rank, degree, degree)), strict=True))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with contextlib.redirect_stdout(sys.stderr):
        import deepspeed  # noqa: F401
    if not (shutil.which("g++") and shutil.which("ninja")):
        log.warning("no g++ or ninja is found: DeepSpeed's ranks sum without shared memory")
        # By this way: as an attribute the module's name is hidden by another one.
        sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    kind = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        kind, init_method=f"file://{meeting}", rank=rank, world_size=degree, timeout=_JOIN
    )


def default_dtype() -> Dtype:
    """The type that is best on this device, by torch's name."""
    import torch

    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def kernels_missing(model: Any) -> str | None:
    """Why DeepSpeed's kernels are not put into a model; None where they are."""
    import torch

    if not torch.cuda.is_available():
        return "there is no GPU"
    if torch.distributed.is_initialized():
        return "they are used on one GPU"
    if hasattr(model, "generate") and model.can_generate():
        return "they keep a cache of their own, which transformers' generate doesn't know"
    if not any(isinstance(each, _layers_with_kernels()) for each in model.modules()):
        return f"DeepSpeed has none for {type(model).__name__}"
    return None


def initialise(
    model: Any, dtype: Dtype, degree: int, config: Mapping[str, Any], *, kernels: bool
) -> None:
    """Let DeepSpeed change a model, which is on its device already.

    degree: with more than one, every rank calls this, after its process group is made. Raises
    ConfigError for a configuration that DeepSpeed refuses; ModelError where the model's answers
    would change; NoKernels.
    """
    import torch
    from pydantic import ValidationError

    asked = _probe(model)
    before = _answer(model, asked)
    kept = {
        name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()
    }
    try:
        # It prints as it goes; our output is the model's log.
        with contextlib.redirect_stdout(sys.stderr):
            import deepspeed

            deepspeed.init_inference(
                model,
                {**config},
                dtype=getattr(torch, dtype),
                tensor_parallel={"tp_size": degree},
                replace_with_kernel_inject=kernels,
            )
        _put_back(model, kept)
        after = _answer(model, asked)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError("option.deepspeed_config_path", None, options.SOURCE, said) from error
    except _NO_KERNELS as error:
        if not kernels:
            raise ModelError(f"DeepSpeed can't run {type(model).__name__}: {error}") from error
        raise NoKernels(f"{type(error).__name__}: {error}") from error
    difference = float((after - before).norm() / before.norm())
    log.info("DeepSpeed changes the output by %.1e (relative)", difference)
    if not difference <= _TOLERANCE[dtype]:
        said = f"DeepSpeed changes the output of {type(model).__name__} by {difference:.1e}"
        if kernels:
            raise NoKernels(said)
        raise ModelError(f"{said}: use option.tensor_parallel_degree=1, or engine=Python")


def _layers_with_kernels() -> tuple[type, ...]:
    """The classes of layers for which the installed DeepSpeed has kernels."""
    from deepspeed.module_inject.replace_policy import replace_policies

    found: list[type] = []
    for policy in replace_policies:
        policy(None)  # which looks the classes up
        known = policy._orig_layer_class
        found += known if isinstance(known, list) else [known] if known is not None else []
    return tuple(found)


def _probe(model: Any) -> dict[str, Any]:
    """A few tokens, as the model takes them."""
    import torch

    settings = model.config
    ids = torch.arange(3, 3 + _PROBE_TOKENS, device=model.device) % settings.vocab_size
    if isinstance(settings.eos_token_id, int):  # some classifiers look for exactly one
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


def _put_back(model: Any, kept: Mapping[str, Any]) -> None:
    """Buffers that were cast (rotary frequencies, say) get their own type again."""
    for name, buffer in model.named_buffers():
        if name in kept and buffer.dtype != kept[name].dtype:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, kept[name].to(buffer.device))
