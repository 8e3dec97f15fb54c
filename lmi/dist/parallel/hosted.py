"""Transformers' models, divided among ranks by that library's plans, exchanging by our collectives.

Transformers shards the weights while it loads them (`DistributedConfig`), and wraps each module
that a plan names in what its style has to exchange. The styles that exchange something in a forward
pass are replaced here, in this process, by ones that do it through the job's `Collective`: quicker
on one host, and with a time-out and a name for a rank that hangs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig
from transformers.distributed.tensor_parallel import (
    ALL_PARALLEL_STYLES,
    ColwiseParallel,
    MoeExpertsParallel,
    Replicate,
    RowwiseParallel,
    Shard,
)
from transformers.integrations import accelerate

from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.parallel.degrees import check_hosted


@contextmanager
def divided(
    config: DistConfig, model_config: Any, collective: Collective
) -> Iterator[dict[str, Any]]:
    """While it is open, `from_pretrained` with these arguments gives this rank's share of a model.

    Once per process, whose default group of torch.distributed must be the job's. Raises ConfigError
    where the model can't be divided so.
    """
    check_hosted(config, model_config)
    place = {"RANK": collective.rank, "WORLD_SIZE": collective.size, "LOCAL_RANK": collective.rank}
    os.environ.update({name: str(value) for name, value in place.items()})  # transformers asks
    whole, split = Replicate(), Shard(-1)
    register = ALL_PARALLEL_STYLES.register
    register("rowwise", _Summed(collective, split, whole))
    register("rowwise_split_input", _Summed(collective, whole, whole))
    register("rowwise_rep", _Summed(collective, whole, whole))
    register("colwise_gather_output", _Gathered(collective, whole, whole))
    register("colwise_rep", _Gathered(collective, whole, whole))
    register("moe_tp_experts", _SummedExperts(collective))
    with _one_device_each():
        yield {"distributed_config": DistributedConfig(tp_size=collective.size, tp_plan="auto")}


@contextmanager
def _one_device_each() -> Iterator[None]:
    """Let transformers put a rank's share on its device without the package accelerate.

    It insists on that package for every device map. But what accelerate does for it is to spread a
    model over several devices, and the map of a rank has one.
    """
    before = accelerate.is_accelerate_available
    accelerate.is_accelerate_available = lambda *_: True
    try:
        yield
    finally:
        accelerate.is_accelerate_available = before


class _Summed(RowwiseParallel):
    """A linear layer split by its inputs: the ranks' results are summed."""

    def __init__(self, collective: Collective, inputs: Any, outputs: Any) -> None:
        super().__init__(input_layouts=inputs, output_layouts=outputs)
        self._collective = collective

    def transform_output_post_forward(self, module: Any, output: Any, mesh: Any) -> Any:
        if isinstance(output, DTensor) or not isinstance(module, torch.nn.Linear):
            return super().transform_output_post_forward(module, output, mesh)
        summed = self._collective.all_reduce(output.contiguous())
        bias = module._parameters.get("bias")  # left out of the product, or it would be added twice
        return summed if bias is None else summed + _local(bias)


class _Gathered(ColwiseParallel):
    """A linear layer split by its outputs, of which every rank gets all."""

    def __init__(self, collective: Collective, inputs: Any, outputs: Any) -> None:
        super().__init__(input_layouts=inputs, output_layouts=outputs)
        self._collective = collective

    def transform_output_post_forward(self, module: Any, output: Any, mesh: Any) -> Any:
        if isinstance(output, DTensor):
            return super().transform_output_post_forward(module, output, mesh)
        *outer, width = output.shape
        rows = self._collective.all_gather(output.reshape(-1, width).contiguous())
        return rows.view(*outer, width * self._collective.size)


class _SummedExperts(MoeExpertsParallel):
    """Experts that are split like MLPs: the ranks' results are summed."""

    def __init__(self, collective: Collective) -> None:
        super().__init__()
        self._collective = collective

    def transform_output_post_forward(
        self, module: Any, output: Any, mesh: Any, source: Any = None
    ) -> Any:
        shards = [p for p in module.parameters() if isinstance(p, DTensor)]
        if all(placement.is_replicate() for p in shards for placement in p.placements):
            return output
        return self._collective.all_reduce(output.contiguous())


def _local(parameter: Any) -> Any:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
