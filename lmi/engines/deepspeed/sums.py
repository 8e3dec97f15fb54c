"""What carries DeepSpeed's sums between the ranks: our collectives, or its own operator.

DeepSpeed's layers sum by `deepspeed.comm`, whose backend is put here over the process group that
the ranks have met in. By default it hands each sum to the job's `Collective`: shared memory that is
ready at once, with a time-out, a name for the rank at fault, and the same bits on every rank.

DeepSpeed's own way on a CPU is an operator that it compiles with g++ and ninja at first use. Its
buffers are set up only if LOCAL_SIZE is the number of ranks, and it is called even if they are not:
a segmentation fault, which the variable cures where all ranks are on one host; elsewhere, and where
the operator can't be had, its sums go by gloo. It spins without a time-out, so a watch ends the
rank that is waited for.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import torch

from lmi.core import EngineDead
from lmi.dist.collectives.base import Collective
from lmi.dist.collectives.peers import Peer
from lmi.dist.place import Place
from lmi.engines.deepspeed.call import library, quiet, submodule
from lmi.engines.deepspeed.settings import Sums

log = logging.getLogger("lmi.engines.deepspeed")

_BACKEND: Final = "deepspeed.comm.torch"
_FRONT: Final = "deepspeed.comm.comm"
_OPERATOR: Final = "deepspeed_shm_comm"
# For ranks to compile the operator: 27 s here, minutes on a busy host.
_BUILD_SECONDS: Final = 900.0
# How often the watch looks whether a sum is late.
_LOOK_SECONDS: Final = 0.1


def join(
    collective: Collective, place: Place, device: torch.device, kind: Sums, seconds: float
) -> str:
    """Make the ranks' group DeepSpeed's; returns what carries its sums, for a person.

    seconds: after which a rank that does not answer counts as hung. Raises EngineDead.
    """
    library(device.type)
    operator, why = None, f"LMI-Dist's {collective.name}: {collective.reason}"
    if kind == "deepspeed":
        operator, why = _own_operator(collective, place, device)
    torch_backend = submodule(_BACKEND)
    setattr(torch_backend, "build_shm_op", lambda: operator)  # noqa: B010 - it has no types

    class Backend(torch_backend.TorchBackend):  # type: ignore[misc, name-defined]
        """DeepSpeed's backend over the group that is there."""

        def new_group(self, ranks: list[int]) -> Any:
            """A group whose operations end after the job's time-out."""
            return torch.distributed.new_group(ranks, timeout=timedelta(seconds=seconds))

        def inference_all_reduce(
            self, tensor: torch.Tensor, op: Any = None, group: Any = None
        ) -> torch.Tensor:
            """The sum over the ranks, in place."""
            return carry(tensor, op, group)

    with quiet():
        backend = Backend(torch.distributed.get_backend(), timedelta(seconds=seconds), None)
    setattr(submodule(_FRONT), "cdb", backend)  # noqa: B010
    if kind == "lmi-dist":

        def carry(tensor: torch.Tensor, op: Any, group: Any) -> torch.Tensor:
            return collective.all_reduce(tensor)

    else:
        watch = Watch(_peers(collective), seconds)
        own = super(Backend, backend).inference_all_reduce
        summed = torch.distributed.ReduceOp.SUM

        def carry(tensor: torch.Tensor, op: Any, group: Any) -> torch.Tensor:
            with watch:
                try:
                    own(tensor, summed if op is None else op, group)
                except RuntimeError as error:
                    raise EngineDead(f"a sum between the ranks failed: {error}") from error
            return tensor

    return why


class Watch:
    """A limit for what can't be told to give up: whoever is waited for is killed.

    Then the front sees which rank it was. As a context manager it is around one operation.
    """

    def __init__(self, peers: list[Peer], seconds: float) -> None:
        self._peers = peers
        self._looks = max(1, round(seconds / _LOOK_SECONDS))
        self._seconds = seconds
        self._operation = 0  # counted, and odd while one is under way
        Thread(target=self._look, name="watch of the sums", daemon=True).start()

    def __enter__(self) -> None:
        self._operation += 1

    def __exit__(self, *exception: object) -> None:
        self._operation += 1

    def _look(self) -> None:
        pause, seen, late = Event(), 0, 0
        while not pause.wait(_LOOK_SECONDS):
            now = self._operation
            late = late + 1 if now % 2 and now == seen else 0
            seen = now
            if late >= self._looks:
                self._end()
                late = 0

    def _end(self) -> None:
        stopped = [peer for peer in self._peers if peer.fate() == "stopped"]
        for peer in stopped:
            log.error("%s is stopped and did not sum for %g s: killed", peer, self._seconds)
            with suppress(ProcessLookupError):
                os.kill(peer.pid, signal.SIGKILL)
        if not stopped:
            log.error("a sum between the ranks has not ended for %g s", self._seconds)
            os._exit(1)  # the thread that sums can't be woken


def _peers(collective: Collective) -> list[Peer]:
    """The other ranks' processes. A pid is exact in float32."""
    mine = torch.tensor([[float(os.getpid())]])
    pids = [int(pid) for pid in collective.all_gather(mine)[0].tolist()]
    return [Peer.of(rank, pid) for rank, pid in enumerate(pids) if rank != collective.rank]


def _own_operator(
    collective: Collective, place: Place, device: torch.device
) -> tuple[Any | None, str]:
    """DeepSpeed's operator on every rank, or on none and why."""
    if device.type != "cpu":
        return None, "DeepSpeed's, by NCCL"
    operator, trouble = None, ""
    if not place.rendezvous.startswith("file://"):
        trouble = "the ranks may be on several hosts"
    # One after the other: the first compiles, the others find it done.
    for rank in range(place.size):
        if rank == place.rank and not trouble:
            operator, trouble = _built()
        collective.meet(_BUILD_SECONDS)
    failed = torch.tensor([[1.0 if trouble else 0.0]])
    if collective.all_gather(failed).any():
        other = trouble or "another rank could not"
        return None, f"DeepSpeed's, by gloo: its shared-memory operator can't be had: {other}"
    return operator, "DeepSpeed's shared-memory operator"


def _built() -> tuple[Any | None, str]:
    from torch.utils.cpp_extension import get_default_build_root

    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    baton = next(folder.glob(f"**/{_OPERATOR}/lock"), None)
    if baton is not None:  # torch would wait for it for ever
        return None, f"somebody compiles it, or was killed while they did: remove {baton}"
    try:
        with quiet():
            return submodule(_BACKEND).build_shm_op(), ""
    except (OSError, RuntimeError, ImportError) as error:
        return None, " ".join(str(error).split()) or type(error).__name__
