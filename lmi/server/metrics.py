"""/metrics: what the sessions counted, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lmi.session import Histogram, Served

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABELS = ["model"]

_COUNTERS = {
    "accepted": ("lmi_requests_accepted", "Requests that were accepted."),
    "prompt_tokens": ("lmi_prompt_tokens", "Tokens of prompts that were answered."),
    "completion_tokens": ("lmi_generated_tokens", "Tokens generated."),
    "engine_deaths": ("lmi_engine_deaths", "Times that the engine was lost."),
}
_HISTOGRAMS = {
    "first_token": ("lmi_time_to_first_token_seconds", "From acceptance to the first token."),
    "inter_token": ("lmi_inter_token_latency_seconds", "Between two steps of one request."),
    "duration": ("lmi_request_duration_seconds", "From acceptance to the end of the answer."),
}
_GAUGES = {
    "running": ("lmi_requests_running", "Requests in the batch."),
    "waiting": ("lmi_requests_waiting", "Requests in the queue."),
    "kv_blocks_used": ("lmi_kv_blocks_used", "Blocks of the KV cache in use."),
    "kv_blocks_total": ("lmi_kv_blocks_total", "Blocks of the KV cache."),
}


class Metrics(Collector):
    """Reads the sessions when asked; a registry of its own, so that servers don't share numbers."""

    def __init__(self, sessions: Mapping[str, Served]) -> None:
        self._sessions = sessions
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The whole page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        for attribute, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=_LABELS)
            for model, session in self._sessions.items():
                counter.add_metric([model], getattr(session.measures, attribute))
            yield counter
        yield self._ended()
        yield self._refused()
        for attribute, (name, text) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, text, labels=_LABELS)
            for model, session in self._sessions.items():
                measured: Histogram = getattr(session.measures, attribute)
                histogram.add_metric([model], _buckets(measured), measured.sum)
            yield histogram
        yield from self._gauges()

    def _ended(self) -> Metric:
        ended = CounterMetricFamily(
            "lmi_requests_ended", "Requests that ended, by outcome.", labels=[*_LABELS, "outcome"]
        )
        for model, session in self._sessions.items():
            for outcome in ("ok", "error", "cancelled"):
                ended.add_metric([model, outcome], session.measures.outcomes[outcome])
        return ended

    def _refused(self) -> Metric:
        refused = CounterMetricFamily(
            "lmi_requests_refused", "Requests refused, by status.", labels=[*_LABELS, "status"]
        )
        for model, session in self._sessions.items():
            for status, count in sorted(session.measures.refused.items()):
                refused.add_metric([model, str(status)], count)
        return refused

    def _gauges(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("lmi_ready", "1 if the model takes requests.", labels=_LABELS)
        for model, session in self._sessions.items():
            ready.add_metric([model], int(session.health().ready))
        yield ready
        for attribute, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=_LABELS)
            for model, session in self._sessions.items():
                gauge.add_metric([model], getattr(session.stats(), attribute, 0))
            yield gauge


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
