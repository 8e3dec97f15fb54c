"""huggingface_hub's progress bars, turned into calls of ours."""

from __future__ import annotations

import threading
from typing import Any

from lmi.models.source import Progress


def progress_bars(progress: Progress, phase: str, done: int, total: int) -> type[Any]:
    """A class to give as `tqdm_class`. done: bytes that are there already. total: bytes in all.

    The library counts the same bytes on two bars (as they arrive and as they are written), which
    one runs ahead depends on the protocol; and files on a third. What is reported is the bar of
    bytes that is ahead.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented, no __all__

    lock = threading.Lock()
    furthest = done
    progress(phase, done, total)

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.counts_bytes = options.get("unit") == "B"
            self.n: float = 0

        def update(self, n: float | None = 1) -> None:
            nonlocal furthest
            with lock:
                self.n += n or 0
                if self.counts_bytes and done + self.n > furthest:
                    furthest = min(total, done + int(self.n))
                    progress(phase, furthest, total)

    return Bar
