"""Who takes the clients' requests."""

from __future__ import annotations

from enum import StrEnum


class Front(StrEnum):
    """EMBEDDED: our own server. DJL: the DJL model server, in Java, drives a worker of ours."""

    EMBEDDED = "embedded"
    DJL = "djl"


JAVA = "the DJL model server"
"""Who reads a key of the server that the embedded one has no use for, behind `Front.DJL`."""
