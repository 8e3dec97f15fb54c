"""A worker over the echo engine, started as Java starts one: `python -m tests.support.djl_worker`.

Variables: WORKER_CHECK_FAILS and WORKER_LOAD_FAILS with a text make these fail with it;
WORKER_CHECK_WAITS lets the check take that many seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from lmi.core import ConfigError, ModelError
from lmi.djl import Arguments, run
from lmi.engines.echo import EchoConfig, EchoEngine
from lmi.session import Loaded, Served, Session, SessionConfig


class EchoHost:
    """Serves the echo engine."""

    def check(self) -> None:
        time.sleep(float(os.environ.get("WORKER_CHECK_WAITS", "0")))
        if text := os.environ.get("WORKER_CHECK_FAILS"):
            raise ConfigError("option.x", "1", "a test", text)

    async def initialise(self, properties: Mapping[str, str]) -> Served:
        if text := os.environ.get("WORKER_LOAD_FAILS"):
            raise ModelError(text)
        pause = float(properties.get("token_seconds", "0"))
        session = Session(
            SessionConfig("m"),
            lambda progress: Loaded(EchoEngine(EchoConfig(token_seconds=pause))),
        )
        session.start()
        await session.ready()
        return session


if __name__ == "__main__":
    sys.exit(run(Arguments.parse(sys.argv[1:], os.environ), EchoHost()))
