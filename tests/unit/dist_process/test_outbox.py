"""Sending never waits and keeps the order."""

from __future__ import annotations

import random
import socket
import threading

from lmi.ipc.outbox import Outbox


def receive_all(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += link.recv(1 << 16)
    return data


def test_frames_arrive_in_order_though_nobody_reads_at_first() -> None:
    ours, theirs = socket.socketpair()
    rng = random.Random(1)
    frames = [rng.randbytes(rng.choice([1, 100, 300_000])) for _ in range(60)]
    with ours, theirs:
        outbox = Outbox(ours)
        for data in frames:  # far more than a socket holds
            outbox.send(bytearray(data))
        assert receive_all(theirs, sum(map(len, frames))) == b"".join(frames)


def test_frames_arrive_in_order_while_somebody_reads() -> None:
    ours, theirs = socket.socketpair()
    rng = random.Random(2)
    frames = [rng.randbytes(rng.choice([1, 1000, 50_000])) for _ in range(400)]
    expected = b"".join(frames)
    received: list[bytes] = []
    with ours, theirs:
        reader = threading.Thread(
            target=lambda: received.append(receive_all(theirs, len(expected)))
        )
        reader.start()
        outbox = Outbox(ours)
        for data in frames:
            outbox.send(bytearray(data))
        reader.join(30)
    assert received == [expected]


def test_frames_for_nobody_are_dropped() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        outbox = Outbox(ours)
        outbox.send(bytearray(3_000_000))  # a thread sends on this one
        theirs.close()
        for _ in range(3):
            outbox.send(bytearray(b"x"))
