"""What Java reads on standard output."""

from __future__ import annotations

import re

from lmi.djl.logs import Metrics
from tests.support.scripted_served import ScriptedServed

# The reference's grammar of a line of metrics.
GRAMMAR = re.compile(
    r"\[METRICS\][\w\s]+\.(Count|Microseconds|Percent):[0-9\-,.e]+"
    r"\|#\w+:[^|,]+\|\d+\|[cgh]"
)


def test_lines_say_what_was_added_and_gauges_what_is() -> None:
    served = ScriptedServed()
    served.name = "a|model, with: signs"
    metrics = Metrics(served)
    assert metrics.lines(1.0) == []
    served.measures.accepted = 3
    served.measures.completion_tokens = 2_000_000
    served.measures.outcomes["ok"] = 2
    served.measures.first_token.observe(0.25)
    lines = metrics.lines(1700000000.4)
    assert "[METRICS]RequestsAccepted.Count:3|#Model:a_model__with__signs|1700000000|c" in lines
    assert (
        "[METRICS]GeneratedTokens.Count:2000000|#Model:a_model__with__signs|1700000000|c" in lines
    )
    assert any("TimeToFirstTokenTotal.Microseconds:250000" in line for line in lines)
    assert all(GRAMMAR.fullmatch(line) for line in lines), lines
    assert metrics.lines() == []
    served.measures.accepted = 4
    assert [line.split("|")[0] for line in metrics.lines()] == ["[METRICS]RequestsAccepted.Count:1"]
