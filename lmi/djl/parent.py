"""The process that started us: we end with it, and in one case it with us.

Not the kernel's parent-death signal: it is sent when the *thread* that started us ends, and Java
starts workers from threads of a pool.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger("lmi.djl")

_GRACE: Final = 15.0  # seconds in which an orphan may end by itself
_TERM_GRACE: Final = 10.0  # seconds that Java's own way out may take


def end_with_parent(grace: float = _GRACE) -> None:
    """From now on this process ends when its parent does: as by SIGTERM, and `grace` seconds later
    for certain."""
    parent = os.getppid()
    try:
        watched = os.pidfd_open(parent)
    except OSError:
        os._exit(1)  # it is gone already
    threading.Thread(target=_watch, args=(watched, grace), daemon=True, name="lmi-parent").start()


def _watch(watched: int, grace: float) -> None:
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


def end_server(grace: float = _TERM_GRACE) -> None:
    """End the Java server, our parent: in async mode nothing else ends a failed load.

    Returns when it is gone or was told to go for good. What is not Java is left alone.
    """
    parent = os.getppid()
    name = _name(parent)
    if name != "java":
        log.error("this worker's parent is %s (%d), no model server: left alone", name, parent)
        return
    try:
        watched = os.pidfd_open(parent)
        os.kill(parent, signal.SIGTERM)
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        if not poll.poll(grace * 1000):
            log.error("the model server did not end within %g s of SIGTERM: killed", grace)
            os.kill(parent, signal.SIGKILL)
        os.close(watched)
    except ProcessLookupError:
        return


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


EndServer = Callable[[], None]
