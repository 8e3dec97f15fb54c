"""How the ranks of one host come to share a segment: all of them, or none."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from lmi.dist.collectives.native import RanksLibrary
from lmi.dist.collectives.process_group import ProcessGroup
from lmi.dist.collectives.segment import Address, adopt, create, reserve

_PAGE: Final = 4096
# A waiting rank keeps its core awake for so long, where there is a core for each. Longer than ranks
# of one step usually differ, shorter than what a scheduler lets somebody else run meanwhile.
_SPIN_SECONDS: Final = 200e-6
# Of the numbers of processors: enough for 1,920.
_MASK_BYTES: Final = 240


def join_segment(library: RanksLibrary, group: ProcessGroup, buffer_bytes: int) -> int | str:
    """This rank's handle of the C++ functions; or why there is none, the same on all ranks.

    All ranks call it together. buffer_bytes: of one data buffer, a multiple of the page size.
    """
    assert buffer_bytes % _PAGE == 0
    size = library.bytes(group.size, buffer_bytes)
    spin = _SPIN_SECONDS if _cores(group) >= group.size else 0.0
    address: Address | None = None
    trouble: str | None = None
    if group.rank == 0:
        try:
            address = create(size)
            # Before the others come, since it clears the counters.
            handle = _attach(library, address.descriptor, address, group, buffer_bytes, spin)
        except OSError as error:
            trouble = f"no segment of {size >> 10} KiB can be made: {error.strerror}"
    if (why := group.agree(trouble)) is not None:
        if address is not None:
            os.close(address.descriptor)
        return why
    told = group.broadcast(None if address is None else address.pack())
    if address is None:
        address = Address.unpack(told)
        try:
            descriptor = adopt(address)
        except OSError as error:
            trouble = f"can't open rank 0's segment: {error.strerror}"
        else:
            try:
                handle = _attach(library, descriptor, address, group, buffer_bytes, spin)
            except OSError as error:
                trouble = f"can't attach rank 0's segment: {error.strerror}"
            finally:
                os.close(descriptor)
    why = group.agree(trouble)
    if group.rank == 0:
        os.close(address.descriptor)
    if why is not None:
        if trouble is None:
            library.detach(handle)
        return why
    return handle


def _attach(
    library: RanksLibrary,
    descriptor: int,
    address: Address,
    group: ProcessGroup,
    buffer_bytes: int,
    spin: float,
) -> int:
    """Map the segment, of which this rank reserves its part. Raises OSError."""
    own = 2 * buffer_bytes
    begin = library.bytes(group.rank, buffer_bytes)
    if group.rank == 0:
        begin, own = 0, begin + own
    reserve(descriptor, begin, own)
    handle = ctypes.c_void_p()
    error = library.attach(
        descriptor,
        address.token,
        group.rank,
        group.size,
        buffer_bytes,
        group.timeout,
        spin,
        handle,
    )
    if error or handle.value is None:
        raise OSError(error, os.strerror(error))
    return handle.value


def _cores(group: ProcessGroup) -> int:
    """How many processors the ranks have together."""
    mine = sum(1 << number for number in os.sched_getaffinity(0))
    masks = group.tell(mine.to_bytes(_MASK_BYTES, "little"))
    together = 0
    for mask in masks:
        together |= int.from_bytes(mask[:_MASK_BYTES], "little")
    return together.bit_count()
