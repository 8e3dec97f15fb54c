"""Sending that never makes the caller wait, and keeps the order."""

from __future__ import annotations

import socket
from collections import deque
from threading import Lock, Thread


class Outbox:
    """Frames for a socket.

    A frame goes out at once if the kernel takes it. If it does not (a long prompt, a receiver that
    stands still), a thread sends the rest and whatever comes after it. When the other end is gone,
    frames are dropped: who reads from the socket learns of it.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lock = Lock()
        self._backlog: deque[memoryview] = deque()  # not empty while the thread runs

    def send(self, data: bytearray) -> None:
        """Send one frame."""
        view = memoryview(data)
        with self._lock:
            if not self._backlog:
                view = view[self._try(view) :]
                if not view:
                    return
                Thread(target=self._drain, name="lmi-dist-outbox", daemon=True).start()
            self._backlog.append(view)

    def _try(self, view: memoryview) -> int:
        try:
            return self._link.send(view, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(view)

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._backlog:
                    return
                view = self._backlog[0]
            try:
                self._link.sendall(view)
            except OSError:
                with self._lock:
                    self._backlog.clear()
                return
            with self._lock:
                self._backlog.popleft()
