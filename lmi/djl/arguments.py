"""The command line and the variables with which the DJL model server starts a worker.

Its forms have 12 to 51 words by version and mode (the launcher's own words are not among ours):
what a version does not say is None. An empty word is one that was left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lmi.djl.wire import FIELD_LIMIT

_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What Java said. rank and world: this process among those of one `mpirun` that Java started.

    sock_name: the socket's path, or the address to listen on where `port` is given. device_id: -1
    for none. unknown: words that this release does not know. field_limit: bytes of the largest
    field that Java takes.
    """

    model_dir: Path
    sock_name: str | None = None
    port: int | None = None
    entry_point: str | None = None
    recommended_entry_point: str | None = None
    device_id: int | None = None
    cluster_size: int = 1
    tensor_parallel_degree: int | None = None
    pipeline_parallel_degree: int | None = None
    log_level: str = "info"
    async_mode: bool | None = None
    rank: int = 0
    world: int = 1
    field_limit: int = FIELD_LIMIT
    unknown: tuple[str, ...] = ()

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Arguments:
        """Read the words after the script's name; ends the process with 2 and a line of usage."""
        parser = _parser()
        given, unknown = parser.parse_known_args(list(argv))
        if given.sock_type == "unix" and not given.sock_name:
            parser.error("--sock-type unix needs --sock-name")
        if given.sock_type == "tcp" and given.port is None:
            parser.error("--sock-type tcp needs --port")
        limit = environ.get("MAX_NETTY_BUFFER_SIZE", str(FIELD_LIMIT))
        if not limit.isdecimal() or int(limit) < 1:
            parser.error(f"MAX_NETTY_BUFFER_SIZE={limit!r}: expected a number of bytes")
        # Only Java's own mpirun: a server that was started by another one inherits its variables.
        ours = given.tensor_parallel_degree is not None
        return cls(
            model_dir=given.model_dir,
            sock_name=given.sock_name,
            port=given.port if given.sock_type == "tcp" else None,
            entry_point=given.entry_point,
            recommended_entry_point=given.recommended_entry_point,
            device_id=given.device_id,
            cluster_size=given.cluster_size or 1,
            tensor_parallel_degree=given.tensor_parallel_degree,
            pipeline_parallel_degree=given.pipeline_parallel_degree,
            log_level=given.log_level or "info",
            async_mode=given.async_mode,
            rank=int(environ.get("OMPI_COMM_WORLD_RANK", 0)) if ours else 0,
            world=int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) if ours else 1,
            field_limit=int(limit),
            unknown=tuple(unknown),
        )

    @property
    def mpi(self) -> bool:
        """Whether Java started us by `mpirun`; each rank then has a socket of its own."""
        return self.tensor_parallel_degree is not None

    @property
    def address(self) -> Path | tuple[str, int]:
        """Where this rank listens."""
        if self.port is not None:
            return self.sock_name or _LOOPBACK, self.port + self.rank
        return Path(f"{self.sock_name}.{self.rank}" if self.mpi else f"{self.sock_name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("djl_python_engine", allow_abbrev=False)
    parser.add_argument("--sock-type", choices=["unix", "tcp"], default="unix")
    parser.add_argument("--sock-name", type=_text)
    parser.add_argument("--port", type=_number)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--entry-point", type=_text)
    parser.add_argument("--recommended-entry-point", type=_text)
    parser.add_argument("--device-id", type=_number)
    parser.add_argument("--cluster-size", type=_number)
    parser.add_argument("--tensor-parallel-degree", type=_number)
    parser.add_argument("--pipeline-parallel-degree", type=_number)
    parser.add_argument("--log-level", type=_text)
    parser.add_argument("--async-mode", action=argparse.BooleanOptionalAction)
    return parser


def _text(word: str) -> str | None:
    return word or None


def _number(word: str) -> int | None:
    return int(word) if word else None
