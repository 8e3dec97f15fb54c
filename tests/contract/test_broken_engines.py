"""The contract suite is worth something: it catches every engine that is broken on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from lmi.engines import echo_script
from tests.contract.observer import Invariant, Violation
from tests.contract.subject import Subject
from tests.contract.subjects import SMALL
from tests.contract.suite import CHECKS
from tests.support.engines import broken_conduct as conduct
from tests.support.engines import broken_deltas as deltas
from tests.support.engines.poisonable import POISON, Poisonable

# Long enough for a scripted engine on a busy machine, short enough to wait for in vain.
PATIENCE_SECONDS = 0.2

BROKEN: list[tuple[type[Any], Invariant]] = [
    (deltas.LosesATokenInTheMiddle, Invariant.TOKENS),
    (deltas.LosesTheLastToken, Invariant.TOKENS),
    (deltas.RepeatsAToken, Invariant.TOKENS),
    (deltas.CountsOneTooMany, Invariant.TOKENS),
    (deltas.StopsEarly, Invariant.TOKENS),
    (deltas.ForgetsLogprobs, Invariant.TOKENS),
    (deltas.LosesThePrompt, Invariant.TOKENS),
    (deltas.SwapsNeighbours, Invariant.ALONE),
    (deltas.SwapsTwoRequests, Invariant.ALONE),
    (conduct.DependsOnItsCompany, Invariant.ALONE),
    (conduct.ForgetsSeeds, Invariant.ALONE),
    (deltas.AnswersForAnother, Invariant.TOKENS),
    (deltas.FinishesTwice, Invariant.ONE_FINISH),
    (deltas.ForgetsUsage, Invariant.ONE_FINISH),
    (deltas.FinishesBeforeItsLastToken, Invariant.NOTHING_AFTER),
    (deltas.SpeaksAfterCancel, Invariant.NOTHING_AFTER),
    (deltas.NeverFinishes, Invariant.ALL_FINISH),
    (deltas.ForgetsTheCancelled, Invariant.ALL_FINISH),
    (deltas.ForgetsTheLastChoice, Invariant.ALL_FINISH),
    (deltas.DiesSilently, Invariant.ALL_FINISH),
    (deltas.OneErrorHarmsAll, Invariant.ONE_IS_HARMED),
    (deltas.FailsOneByOne, Invariant.ONE_IS_HARMED),
    (deltas.DecodesEachTokenAlone, Invariant.TEXT),
    (deltas.SaysAnotherText, Invariant.TEXT),
    (deltas.KeepsWhatItHeldBack, Invariant.TEXT),
    (deltas.IgnoresStopStrings, Invariant.TEXT),
    (deltas.SaysTheStopString, Invariant.TEXT),
    (conduct.IgnoresCancel, Invariant.CANCEL),
    (conduct.CancelsOthers, Invariant.CANCEL),
    (conduct.CutsLongPrompts, Invariant.REFUSAL),
    (conduct.AnswersWhatItRefused, Invariant.REFUSAL),
    (conduct.NeverWakes, Invariant.WAKE),
    (conduct.WakesOnce, Invariant.WAKE),
    (conduct.IgnoresItsTimeout, Invariant.POLL),
    (conduct.LeaksBlocks, Invariant.NOTHING_LEFT),
    (conduct.ClosesOnlyOnce, Invariant.CLOSE),
    (conduct.DiesWithoutAWord, Invariant.DEATH),
    (conduct.DiesWithoutWaking, Invariant.DEATH),
]


@pytest.mark.parametrize(
    ("kind", "invariant"),
    [
        pytest.param(
            *each,
            id=each[0].__name__,
            # It must wait for longer than any other engine may.
            marks=[pytest.mark.slow] if each[0] is conduct.IgnoresItsTimeout else [],
        )
        for each in BROKEN
    ],
)
def test_the_suite_catches_a_broken_engine_by_the_invariant_it_breaks(
    kind: type[Any], invariant: Invariant
) -> None:
    subject = Subject(
        name=kind.__name__,
        make=lambda: kind(SMALL),
        encode=echo_script.encode,
        decode=echo_script.decode,
        patience=PATIENCE_SECONDS,
        kill=kind.kill if hasattr(kind, "kill") else None,
        poison=POISON if issubclass(kind, Poisonable) else None,
    )
    assert invariant in violated(subject, until=invariant)


def violated(subject: Subject, *, until: Invariant) -> set[Invariant]:
    """The invariants that the suite finds broken, up to the one that is looked for."""
    found: set[Invariant] = set()
    for check in CHECKS:
        engine = subject.make()
        try:
            check(subject, engine)
        except Violation as violation:
            found.add(violation.invariant)
            if violation.invariant is until:
                break
    return found
