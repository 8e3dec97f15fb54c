"""What the server is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Sizes are in bytes, times in seconds.

    port 0 lets the system choose. max_request_size: of a body. body_timeout: from its headers to
    its last byte. head_timeout and max_head_size: of the request line and the headers.
    grace: how long live requests may go on after SIGTERM. throttle_status: when the queue is full;
    unavailable_status: while no engine is ready. request_id_header: where a client's own id comes
    from; the answer's is always x-request-id. adapter_folders: where adapters may be registered
    from by API.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    max_request_size: int = 64 * 1024 * 1024
    max_head_size: int = 64 * 1024
    head_timeout: float = 30.0
    body_timeout: float = 60.0
    keep_alive: float = 75.0
    grace: float = 30.0
    throttle_status: int = 429
    unavailable_status: int = 503
    request_id_header: str = "x-request-id"
    access_log: bool = True
    adapter_folders: tuple[Path, ...] = ()
