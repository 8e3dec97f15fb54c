"""What several checks do with an engine: run requests to their end, alone or together."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from typing import Final

from lmi.core import EngineDead, Sampling
from tests.contract.observer import (
    Invariant,
    Observed,
    Observer,
    Reply,
    Violation,
    require,
)
from tests.contract.subject import Subject
from tests.contract.verdict import judge

LONG: Final = Sampling(max_new_tokens=60, ignore_eos=True)
# An idle poll must not wait for longer than its timeout: this much is the machine's own delay.
SLACK_SECONDS: Final = 1.0


def finish_all(subject: Subject, observer: Observer, observed: Sequence[Observed]) -> None:
    """Wait for these, which must be all that is live, judge them, and see the engine idle."""
    observer.until_over(*observed)
    for each in observed:
        judge(subject, observer.engine.info, each)
    stays_idle(subject, observer)


def stays_idle(subject: Subject, observer: Observer) -> None:
    """Nothing more comes, an idle poll does not wait, and nothing is held."""
    for timeout in (0.0, 0.0, 0.001):
        started = time.monotonic()
        came = observer.poll(timeout)
        took = time.monotonic() - started
        require(came == 0, Invariant.NOTHING_AFTER, "an idle engine had something to say")
        in_time = took < timeout + SLACK_SECONDS
        require(in_time, Invariant.POLL, f"an idle poll({timeout}) took {took:.2f} s")
    deadline = time.monotonic() + subject.patience
    stats = observer.engine.stats()
    while stats.running or stats.waiting or stats.kv_blocks_used:
        # The numbers of an engine in another process may be a message behind.
        require(time.monotonic() < deadline, Invariant.NOTHING_LEFT, f"{stats} though idle")
        observer.poll(0.01)
        stats = observer.engine.stats()


def raises_when_woken(observer: Observer, woken: threading.Event) -> None:
    """One poll(0) per wake must soon raise EngineDead."""
    deadline = time.monotonic() + observer.patience
    while time.monotonic() < deadline:
        require(woken.wait(observer.patience), Invariant.DEATH, "its caller was not woken")
        woken.clear()
        try:
            observer.poll(0)
        except EngineDead:
            return
    raise Violation(Invariant.DEATH, "poll never raised EngineDead")


def alone_reply(observer: Observer, prompt: str | tuple[int, ...], sampling: Sampling) -> Reply:
    """The only choice of a request that runs alone."""
    observed = observer.submit(prompt, sampling)
    observer.until_over(observed)
    return observed.reply


def same(observed: Observed, gist: object, when: str) -> None:
    now = observed.reply.gist
    require(now == gist, Invariant.ALONE, f"{when}: {now}, before: {gist}")


def stop_over_two_tokens(reply: Reply) -> str:
    """A string that begins in one of the reply's tokens and ends in the next."""
    for left, right in itertools.pairwise(reply.tokens[5:]):
        if left.text and right.text and "\N{REPLACEMENT CHARACTER}" not in left.text + right.text:
            return left.text[-1:] + right.text[:1]
    raise AssertionError(f"no two neighbours with text in {reply.text!r}")


def random_request(subject: Subject, rng: random.Random) -> tuple[str | tuple[int, ...], Sampling]:
    """A request of any kind that the engine should serve."""
    prompt: str | tuple[int, ...] = subject.prompt(rng.randint(1, 24))
    if rng.random() < 0.3:
        prompt = subject.decode(subject.prompt(rng.randint(4, 24)), skip_special_tokens=True)
    n = rng.choice((1, 1, 1, 2, 3))
    sampling = Sampling(
        max_new_tokens=rng.randint(1, 40),
        min_new_tokens=0,
        temperature=rng.choice((0.0, 0.0, 0.7, 1.5)),
        top_k=rng.choice((0, 0, 5)),
        top_p=rng.choice((1.0, 0.9)),
        seed=rng.randrange(1000),
        stop=tuple(rng.sample(("e", "ox j", "!!", "azy dog, a"), k=rng.choice((0, 0, 1, 2)))),
        include_stop_text=rng.random() < 0.2,
        ignore_eos=rng.random() < 0.5,
        skip_special_tokens=rng.random() < 0.8,
        logprobs=rng.choice((None, None, 0, 3)),
        n=n,
        best_of=n,
    )
    return prompt, sampling
