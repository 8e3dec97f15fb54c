"""How much memory each rank may count on, so that all plan with the same number of KV blocks."""

from __future__ import annotations

from typing import Final

import torch

from lmi.dist.collectives.base import Collective

# As long as the front waits for all of the loading.
_LOAD_SECONDS: Final = 3600.0
_MIB: Final = 1 << 20  # the unit that is exchanged: float32 holds such numbers exactly up to 16 TiB


def least_free(free: int, device: torch.device, collective: Collective) -> int:
    """The bytes that the rank with the fewest may take, of which `free` are this rank's; ranks on
    one host share what is there.

    To be asked when the weights are loaded; waits for ranks that load more slowly. Raises
    EngineDead.
    """
    collective.meet(_LOAD_SECONDS)
    mine = torch.tensor([[free // _MIB]], dtype=torch.float32, device=device)
    least = int(collective.all_gather(mine).min().item()) * _MIB
    return least if device.type == "cuda" else least // collective.size
