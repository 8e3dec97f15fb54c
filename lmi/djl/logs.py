"""What Java reads on our standard output: log lines, the marker, and metrics.

Java logs each line again, from standard error as a warning; so all goes to standard output. A line
of metrics becomes a number of its `/server/metrics`. Neither stream may ever be closed: Java takes
that for the end of the process.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Final

from lmi.core import EngineStats
from lmi.session import Measures, Served

FORMAT: Final = "%(levelname)s::%(name)s: %(message)s"
MARKER: Final = "Python engine started."
CHATTY: Final = ("httpx", "httpcore", "botocore", "boto3", "s3transfer", "urllib3", "filelock")


def configure(level: str) -> None:
    """Send the log to standard output. level: as on Java's command line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(FORMAT))
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def say(line: str) -> None:
    """A line for Java itself, at once and whole."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Metrics:
    """The served model's numbers as lines of Java's form; counters say what has been added."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._counted: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        # Java's grammar of a dimension has no more than this.
        self._model = re.sub(r"[^\w.-]", "_", served.name)

    def lines(self, now: float | None = None) -> list[str]:
        """What changed since the last call. now: seconds since 1970."""
        stamp = round(time.time() if now is None else now)
        lines = []
        for name, value in self._counters(self._served.measures).items():
            added = value - self._counted.get(name, 0)
            if added:
                self._counted[name] = value
                lines.append(self._line(name, added, stamp, "c"))
        for name, value in self._gauges().items():
            if value != self._shown.get(name, 0):
                self._shown[name] = value
                lines.append(self._line(name, value, stamp, "g"))
        return lines

    def _line(self, name: str, value: float, stamp: int, kind: str) -> str:
        return f"[METRICS]{name}:{value:.15g}|#Model:{self._model}|{stamp}|{kind}"

    @staticmethod
    def _counters(measures: Measures) -> dict[str, float]:
        counters: dict[str, float] = {
            "RequestsAccepted.Count": measures.accepted,
            "PromptTokens.Count": measures.prompt_tokens,
            "GeneratedTokens.Count": measures.completion_tokens,
            "EngineDeaths.Count": measures.engine_deaths,
            "TimeToFirstTokenTotal.Microseconds": round(measures.first_token.sum * 1e6),
            "FirstTokens.Count": sum(measures.first_token.counts),
        }
        for outcome, count in measures.outcomes.items():
            counters[f"Requests{outcome.capitalize()}.Count"] = count
        return counters

    def _gauges(self) -> dict[str, float]:
        stats = self._served.stats()
        gauges: dict[str, float] = {
            "RequestsRunning.Count": stats.running,
            "RequestsWaiting.Count": stats.waiting,
        }
        if isinstance(stats, EngineStats) and stats.kv_blocks_total:
            used = stats.kv_blocks_used / stats.kv_blocks_total
            gauges["KvCacheUsed.Percent"] = round(100 * used, 1)
        return gauges
