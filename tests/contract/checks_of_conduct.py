"""Checks of what an engine does: cancel, refuse, fail, die, close."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

from lmi.core import Engine, Finish, Sampling, TooLong
from tests.contract.driving import (
    LONG,
    alone_reply,
    finish_all,
    raises_when_woken,
    same,
    stays_idle,
)
from tests.contract.observer import (
    Invariant,
    Violation,
    require,
)
from tests.contract.subject import Subject
from tests.contract.verdict import judge


def a_cancelled_request_finishes_whenever_it_was_cancelled(
    subject: Subject, engine: Engine
) -> None:
    observer = subject.observe(engine)
    before = observer.submit(subject.prompt(5), LONG)
    observer.cancel(before)
    observer.until_over(before)
    require(before.reply.finish is Finish.CANCELLED, Invariant.CANCEL, f"{before.reply}")

    prompts = range(5, 5 + 2 * engine.info.max_batch)  # half of them wait for a place
    crowd = [observer.submit(subject.prompt(length), LONG) for length in prompts]
    while not crowd[0].reply.tokens:
        observer.poll(subject.patience)
    for observed in crowd[::2]:
        observer.cancel(observed)
        observer.cancel(observed)
    finish_all(subject, observer, crowd)
    cut = sum(len(observed.reply.tokens) < LONG.max_new_tokens for observed in crowd[::2])
    require(cut > 0, Invariant.CANCEL, "every cancelled request ran to its end")

    observer.cancel(crowd[1])
    engine.cancel(0)  # an id that nobody used
    stays_idle(subject, observer)


def cancelling_at_random_harms_nobody_else(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    rng = random.Random(3)
    asked = [(subject.prompt(rng.randint(2, 12)), replace(LONG, seed=1)) for _ in range(12)]
    alone = [alone_reply(observer, *each).gist for each in asked]
    crowd = [observer.submit(*each) for each in asked]
    doomed = rng.sample(crowd, k=6)
    while not all(observed.over for observed in crowd):
        if doomed and rng.random() < 0.5:
            observer.cancel(doomed.pop())
        observer.poll(subject.patience)
    finish_all(subject, observer, crowd)
    for observed, gist in zip(crowd, alone, strict=True):
        if not observed.cancelled:
            same(observed, gist, "beside cancelled requests")


def the_longest_prompt_is_served_and_one_longer_is_refused(
    subject: Subject, engine: Engine
) -> None:
    observer = subject.observe(engine)
    longest = engine.info.max_model_len - 1
    observed = observer.submit(subject.prompt(longest), Sampling(max_new_tokens=1))
    error = observer.refused(subject.prompt(longest + 1), Sampling(max_new_tokens=1))
    require(isinstance(error, TooLong), Invariant.REFUSAL, f"{error!r} is no TooLong")
    finish_all(subject, observer, [observed])


def a_refused_request_leaves_nothing_behind(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    good = [observer.submit(subject.prompt(4), LONG) for _ in range(2)]
    before = engine.stats()
    vocabulary = engine.info.vocab_size
    for prompt in ((), (vocabulary,), (0, -1), subject.prompt(engine.info.max_model_len)):
        observer.refused(prompt)
    observer.refused(subject.prompt(4), Sampling(max_new_tokens=0))
    after = engine.stats()
    held = (after.running + after.waiting) - (before.running + before.waiting)
    require(held <= 0, Invariant.REFUSAL, f"{before} before, {after} after")
    finish_all(subject, observer, good)


def close_is_idempotent_also_with_live_requests(subject: Subject, engine: Engine) -> None:
    with subject.engine() as own:
        observer = subject.observe(own)
        observed = observer.submit(subject.prompt(3), Sampling(max_new_tokens=2))
        observer.until_over(observed)
        observer.submit(subject.prompt(3), LONG)
        try:
            own.close()
            own.close()
        except Exception as error:  # whatever it raises, it is a violation
            raise Violation(Invariant.CLOSE, f"close raised {error!r}") from error


def an_engine_that_dies_with_live_requests_says_so(subject: Subject, engine: Engine) -> None:
    if subject.kill is None:
        return
    with subject.engine() as own:
        observer = subject.observe(own)
        observer.submit(subject.prompt(3), LONG)
        woken = threading.Event()
        own.on_ready(woken.set)
        subject.kill(own)
        raises_when_woken(observer, woken)


def an_engine_that_dies_idle_wakes_its_caller(subject: Subject, engine: Engine) -> None:
    if subject.kill is None:
        return
    with subject.engine() as own:
        observer = subject.observe(own)
        observed = observer.submit(subject.prompt(3), Sampling(max_new_tokens=2))
        finish_all(subject, observer, [observed])
        woken = threading.Event()
        own.on_ready(woken.set)
        subject.kill(own)
        raises_when_woken(observer, woken)


def an_error_harms_one_request(subject: Subject, engine: Engine) -> None:
    if subject.poison is None:
        return
    observer = subject.observe(engine)
    prompts = [subject.prompt(length) for length in range(3, 9)]
    alone = [alone_reply(observer, prompt, LONG).gist for prompt in prompts]
    crowd = [observer.submit(prompt, LONG) for prompt in prompts[:2]]
    poisoned = observer.submit(subject.poison, LONG)
    crowd += [observer.submit(prompt, LONG) for prompt in prompts[2:]]
    observer.until_over(poisoned, *crowd)
    require(poisoned.reply.finish is Finish.ERROR, Invariant.ONE_IS_HARMED, f"{poisoned.reply}")
    for observed, gist in zip(crowd, alone, strict=True):
        judge(subject, engine.info, observed)
        same(observed, gist, "beside a request that failed")
    stays_idle(subject, observer)
