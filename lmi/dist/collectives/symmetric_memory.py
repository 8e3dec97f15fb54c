"""Sums over the GPUs of one host through memory that all of them see (torch's symmetric memory).

One-shot: every rank reads all buffers; two-shot: every rank sums a slice, then all gather;
multimem: the NVLink switch sums (Hopper and later). The ranks hold the same bits, and a sum can be
part of a CUDA graph. What these can't do, NCCL does.

The operators are `torch.ops.symm_mem`, which torch calls alpha: they are used after a self-test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch

from lmi.dist.collectives.process_group import ProcessGroup

Way = Literal["one-shot", "two-shot", "multimem"]

# torch's compiler draws the line between one-shot and two-shot here too.
ONE_SHOT_BYTES: Final = 128 << 10
# Above it NCCL moves more bytes per second. Every rank keeps a buffer of this size.
BUFFER_BYTES: Final = 8 << 20
# The switch reads vectors of this size.
_GRAIN: Final = 16
# The types that torch's kernels sum.
_DTYPES: Final = (torch.float32, torch.bfloat16)
_TEST_BYTES: Final = (1 << 10, ONE_SHOT_BYTES, ONE_SHOT_BYTES + _GRAIN, 1 << 20)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the ranks' GPUs can do together. peers: each reads every other's memory. multicast:
    their switch sums. ranks: how many there are."""

    one_host: bool
    peers: bool
    multicast: bool
    ranks: int

    def trouble(self) -> str | None:
        """Why there can be no symmetric memory, or None."""
        if not self.one_host:
            return "the ranks are on different hosts"
        if not self.peers:
            return "this GPU can't read the memory of all others"
        return None

    def way(self, size: int, dtype: torch.dtype) -> Way | None:
        """How to sum `size` bytes; None leaves it to NCCL.

        With two ranks there is nothing for the switch to gain: each reads one other buffer.
        """
        if dtype not in _DTYPES or size % _GRAIN or not 0 < size <= BUFFER_BYTES:
            return None
        if self.multicast and self.ranks > 2:
            return "multimem"
        return "one-shot" if size <= ONE_SHOT_BYTES else "two-shot"


class SymmetricSum:
    """Sums tensors in place as `abilities` allow, else as `otherwise` does."""

    def __init__(
        self,
        abilities: Abilities,
        group_name: str,
        device: torch.device,
        otherwise: Callable[[torch.Tensor], None],
    ) -> None:
        """Set up the buffer with all other ranks. Raises RuntimeError."""
        from torch.distributed import _symmetric_memory

        self._abilities = abilities
        self._group = group_name
        self._otherwise = otherwise
        self._buffer = _symmetric_memory.empty(BUFFER_BYTES, dtype=torch.uint8, device=device)
        self._handle = _symmetric_memory.rendezvous(self._buffer, group_name)

    def __call__(self, tensor: torch.Tensor) -> None:
        """The sum over the ranks, in place."""
        way = self._abilities.way(tensor.nbytes, tensor.dtype)
        if way is None:
            self._otherwise(tensor)
            return
        operators = torch.ops.symm_mem
        numbers = tensor.view(-1)
        shared = self._buffer[: tensor.nbytes].view(tensor.dtype)
        shared.copy_(numbers)
        if way == "one-shot":
            operators.one_shot_all_reduce_out(shared, "sum", self._group, numbers)
            return
        if way == "two-shot":
            operators.two_shot_all_reduce_(shared, "sum", self._group)
        else:
            operators.multimem_all_reduce_(shared, "sum", self._group)
        numbers.copy_(shared)


def use_symmetric_memory(group: ProcessGroup, device: torch.device) -> str | None:
    """Let `group` sum through symmetric memory; or why that is not possible on some rank.

    All ranks call it together and all get the same.
    """
    abilities = _abilities(group, device)
    if (why := group.agree(abilities.trouble())) is not None:
        return why
    try:
        own: SymmetricSum | None = SymmetricSum(
            abilities, group.group_name, device, group.sum_on_device
        )
        trouble = None
    except (ImportError, AttributeError, RuntimeError) as error:  # torch: no driver, no handles
        own, trouble = None, f"symmetric memory can't be set up: {str(error).splitlines()[0]}"
    why = group.agree(trouble)
    if why is not None or own is None:
        return why
    if (why := group.agree(_self_test(own, group, device))) is not None:
        return why
    group.sum_on_device = own
    return None


def _abilities(group: ProcessGroup, device: torch.device) -> Abilities:
    """Of all ranks: the switch sums only if it does so on every one of them."""
    from torch._C._autograd import DeviceType
    from torch._C._distributed_c10d import _SymmetricMemory

    index = device.index or 0
    others = [other for other in range(group.size) if other != index]
    peers = torch.cuda.device_count() >= group.size and all(
        torch.cuda.can_device_access_peer(index, other) for other in others
    )
    try:
        multicast = bool(_SymmetricMemory.has_multicast_support(DeviceType.CUDA, index))
    except RuntimeError:  # a driver from before there were such switches
        multicast = False
    everywhere = group.agree(None if multicast else "no multicast") is None
    return Abilities(group.one_host, peers, everywhere, group.size)


def _self_test(own: SymmetricSum, group: ProcessGroup, device: torch.device) -> str | None:
    """Sums near NCCL's, and the same bits on all ranks. To the end on every rank."""
    trouble: str | None = None
    generator = torch.Generator(device).manual_seed(group.rank)
    for dtype in _DTYPES:
        for size in _TEST_BYTES:
            numbers = torch.randn(
                size // dtype.itemsize, dtype=dtype, device=device, generator=generator
            )
            wanted, found = numbers.clone(), numbers
            group.sum_on_device(wanted)
            own(found)
            bits = group.all_gather(found.view(torch.uint8).view(1, -1)).view(group.size, -1)
            near = torch.allclose(found.float(), wanted.float(), rtol=2e-2, atol=2e-2)
            if not (near and bool((bits == bits[:1]).all())):
                trouble = trouble or f"its sum of {size} bytes ({dtype}) is not NCCL's"
    return trouble
