"""How much memory each rank may count on, so that all plan with the same number of KV blocks."""

from __future__ import annotations

from typing import Final

import torch

from lmi.dist.collectives.base import Collective
from lmi.dist.device import free_memory

# As long as the front waits for all of the loading.
_LOAD_SECONDS: Final = 3600.0
_MIB: Final = 1 << 20  # the unit that is exchanged: float32 holds such numbers exactly up to 16 TiB


def least_free(device: torch.device, collective: Collective) -> int:
    """The bytes that are free to the rank with the fewest; ranks on one host share what is there.

    To be asked when the weights are loaded; waits for ranks that load more slowly. Raises
    EngineDead.
    """
    collective.meet(_LOAD_SECONDS)
    free = torch.tensor([[free_memory(device) // _MIB]], dtype=torch.float32, device=device)
    least = int(collective.all_gather(free).min().item()) * _MIB
    return least if device.type == "cuda" else least // collective.size
