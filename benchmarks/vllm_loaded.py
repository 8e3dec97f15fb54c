"""The subjects of a comparison, loaded: each in processes of its own, and stopped between turns."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.random_llama import prompts
from benchmarks.serving import Served, free_port, load, served
from benchmarks.vllm_java import java
from benchmarks.vllm_offline import offline
from benchmarks.vllm_rounds import STREAMED
from benchmarks.vllm_subjects import (
    LMI_INVOCATIONS,
    LMI_SERVE,
    OFFLINE,
    VARIABLES,
    VLLM_SERVE,
    our_server,
    vllm_serve,
)
from tests.support.java_build import Unavailable
from tests.support.java_driver import JavaError

PROMPT_TOKENS: Final = 64
DIFFERENT_PROMPTS: Final = 256  # enough that no two live requests share one
# What a subject that does not start, or breaks, raises.
BROKEN: Final = (RuntimeError, JavaError, Unavailable, TimeoutError, OSError)


class Runner(Protocol):
    """A loaded subject, which takes its turns."""

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        """The figures of one turn."""


@dataclass(frozen=True, slots=True)
class Http:
    """A server's model, asked in one dialect. prompts: a file of them."""

    server: Served
    dialect: str
    prompts: Path

    def run(self, mode: str, concurrency: int, requests: int, tokens: int) -> dict[str, Any]:
        self.server.resume()
        figures = load(
            self.server,
            *("--dialect", self.dialect, "--prompts", str(self.prompts)),
            *("--out", str(tokens), "--concurrency", str(concurrency)),
            *("--requests", str(requests)),
            *([] if mode == STREAMED else ["--whole"]),
        )
        self.server.pause()
        return figures


class Loaded:
    """The subjects of one model, each in processes of its own."""

    def __init__(self, folder: Path, dtype: str, running: ExitStack) -> None:
        """folder: the model's. running: holds what is started."""
        self._dtype = dtype
        self._folder = folder
        self._running = running
        self._prompts = prompts(folder, DIFFERENT_PROMPTS, PROMPT_TOKENS)
        self._home = Path(running.enter_context(tempfile.TemporaryDirectory()))
        self._file = self._home / "prompts.json"
        self._file.write_text(json.dumps(self._prompts))
        self._servers: dict[str, Served] = {}

    def load(self, subject: str) -> Runner:
        """Start a subject. Raises what its start raises."""
        folder, dtype = self._folder, self._dtype
        if subject == OFFLINE:
            return self._running.enter_context(offline(folder, dtype, self._prompts))
        if subject == VLLM_SERVE:
            port = free_port()
            return self._http(VLLM_SERVE, "completions", vllm_serve(folder, dtype, port), port)
        if subject in (LMI_SERVE, LMI_INVOCATIONS):
            dialect = "completions" if subject == LMI_SERVE else "lmi"
            if LMI_SERVE in self._servers:  # one server answers both
                return Http(self._servers[LMI_SERVE], dialect, self._file)
            port = free_port()
            return self._http(LMI_SERVE, dialect, our_server(folder, dtype, port, self._home), port)
        return self._running.enter_context(java(subject, folder, dtype, self._prompts))

    def _http(self, name: str, dialect: str, command: list[str], port: int) -> Http:
        server = self._running.enter_context(served(command, port, VARIABLES))
        server.pause()
        self._servers[name] = server
        return Http(server, dialect, self._file)
