"""The contract of every engine: one function for each thing that must hold.

A check gets a subject and an engine of it that is idle, leaves it idle, and raises Violation. It
knows nothing of the engine but the protocol, so that it runs over engines of any kind, and over
those that are broken on purpose (`test_broken_engines.py`), each of which must be caught.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from lmi.core import Engine, EngineDead, Finish, Sampling, TooLong
from tests.contract.observer import (
    Invariant,
    Observed,
    Observer,
    Reply,
    Violation,
    require,
)
from tests.contract.subject import Subject
from tests.contract.verdict import first_stop, judge

Check = Callable[[Subject, Engine], None]
CHECKS: Final[list[Check]] = []

LONG: Final = Sampling(max_new_tokens=60, ignore_eos=True)
# poll(0) must not wait, and a poll must not wait for longer than its timeout: this much is the
# machine's own delay, not the engine's.
SLACK_SECONDS: Final = 1.0


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@check
def one_token_is_one_delta(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    observed = observer.submit(subject.prompt(5), Sampling(max_new_tokens=1))
    finish_all(subject, observer, [observed])


@check
def many_more_requests_than_places_all_finish(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    rng = random.Random(1)
    waiting = [random_request(subject, rng) for _ in range(6 * engine.info.max_batch)]
    accepted: list[Observed] = []
    while waiting:
        arriving = [waiting.pop() for _ in range(min(len(waiting), rng.randrange(4)))]
        accepted += [observer.submit(*each) for each in arriving]
        observer.poll(0)
    finish_all(subject, observer, accepted)


@check
def the_same_holds_for_a_front_that_polls_only_when_woken(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    rng = random.Random(2)
    accepted = [observer.submit(*random_request(subject, rng)) for _ in range(10)]
    observer.until_over_by_wake()
    for observed in accepted:
        judge(subject, engine.info, observed)
    late = observer.submit(subject.prompt(3), Sampling(max_new_tokens=5, ignore_eos=True))
    observer.until_over_by_wake(late)
    stays_idle(subject, observer)


@check
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


@check
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


@check
def the_longest_prompt_is_served_and_one_longer_is_refused(
    subject: Subject, engine: Engine
) -> None:
    observer = subject.observe(engine)
    longest = engine.info.max_model_len - 1
    observed = observer.submit(subject.prompt(longest), Sampling(max_new_tokens=1))
    error = observer.refused(subject.prompt(longest + 1), Sampling(max_new_tokens=1))
    require(isinstance(error, TooLong), Invariant.REFUSAL, f"{error!r} is no TooLong")
    finish_all(subject, observer, [observed])


@check
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


@check
def a_stop_string_over_two_tokens_ends_the_text_before_it(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    prompt = subject.prompt(20)
    whole = alone_reply(observer, prompt, LONG)
    stop = stop_over_two_tokens(whole)
    match = first_stop(whole.text, [stop])
    assert match is not None
    never = "\N{SNOWMAN}never\N{SNOWMAN}"
    for sampling, end in (
        (replace(LONG, stop=(never, stop)), match[0]),
        (replace(LONG, stop=(stop, never), include_stop_text=True), match[1]),
    ):
        cut = observer.submit(prompt, sampling)
        finish_all(subject, observer, [cut])
        require(cut.reply.finish is Finish.STOP, Invariant.TEXT, f"{stop!r} did not stop {cut}")
        require(cut.reply.text == whole.text[:end], Invariant.TEXT, f"{stop!r}: {cut.reply}")
    missed = observer.submit(prompt, replace(LONG, stop=(stop + never,)))
    finish_all(subject, observer, [missed])
    require(missed.reply.text == whole.text, Invariant.TEXT, f"{missed.reply.text!r}")


@check
def no_part_of_a_stop_string_is_ever_said(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    prompt = subject.prompt(20)
    stop = stop_over_two_tokens(alone_reply(observer, prompt, LONG))
    observed = observer.submit(prompt, replace(LONG, stop=(stop,)))
    said = ""
    while not observed.over:
        observer.poll(subject.patience)
        now = observed.reply.text
        require(now.startswith(said), Invariant.TEXT, f"{said!r} was taken back: {now!r}")
        said = now
        require(stop not in said, Invariant.TEXT, f"{stop!r} was said: {said!r}")
    finish_all(subject, observer, [observed])


@check
def a_stop_token_ends_the_choice_and_says_nothing(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    prompt = subject.prompt(12)
    ids = alone_reply(observer, prompt, LONG).ids
    place = 5
    stop_id = ids[place]
    first = ids.index(stop_id)
    observed = observer.submit(prompt, replace(LONG, stop_token_ids=(stop_id,)))
    finish_all(subject, observer, [observed])
    require(observed.reply.ids == ids[: first + 1], Invariant.TOKENS, f"{observed.reply.ids}")
    require(observed.reply.finish is Finish.STOP, Invariant.ONE_FINISH, f"{observed.reply}")


@check
def characters_of_several_tokens_come_out_whole(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    texts = ("a€b", "日本語のテキスト。", "naïve café 🙂👩‍👩‍👧", "\N{COMBINING ACUTE ACCENT}e")
    crowd = [observer.submit(text, replace(LONG, seed=4, temperature=1.5)) for text in texts]
    crowd += [
        observer.submit(text, replace(LONG, max_new_tokens=n)) for text in texts for n in (1, 2)
    ]
    finish_all(subject, observer, crowd)


@check
def the_same_seed_gives_the_same_tokens(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    sampling = replace(LONG, temperature=1.0, seed=11)
    first = alone_reply(observer, subject.prompt(6), sampling)
    again = observer.submit(subject.prompt(6), sampling)
    finish_all(subject, observer, [again])
    same(again, first.gist, "with the same seed again")


@check
def a_request_gives_the_same_alone_and_in_a_crowd(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    rng = random.Random(5)
    asked = [random_request(subject, rng) for _ in range(4 * engine.info.max_batch)]
    asked = [(prompt, replace(sampling, n=1, best_of=1)) for prompt, sampling in asked]
    alone = [alone_reply(observer, *each).gist for each in asked]
    crowd = [observer.submit(*each) for each in asked]
    finish_all(subject, observer, crowd)
    for observed, gist in zip(crowd, alone, strict=True):
        same(observed, gist, "in a crowd")


@check
def every_choice_has_its_own_finish(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    several = replace(LONG, n=3, best_of=3, temperature=1.0, seed=7)
    crowd = [observer.submit(subject.prompt(4), several) for _ in range(3)]
    crowd[-1].cancelled = True
    observer.poll(0)
    engine.cancel(crowd[-1].request.id)
    finish_all(subject, observer, crowd)


@check
def the_prompt_comes_back_with_logprobs_where_asked(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    prompt = subject.prompt(9)
    asked = observer.submit(prompt, Sampling(max_new_tokens=3, prompt_logprobs=True, logprobs=2))
    plain = observer.submit(prompt, Sampling(max_new_tokens=3))
    finish_all(subject, observer, [asked, plain])
    require(not plain.reply.prompt, Invariant.TOKENS, "a prompt came back unasked")
    shown = asked.reply.prompt
    require(tuple(token.id for token in shown) == prompt, Invariant.TOKENS, f"{shown}")
    require(shown[0].logprob is None, Invariant.TOKENS, f"the first has a logprob: {shown[0]}")
    rest = all(token.logprob is not None and token.logprob <= 1e-6 for token in shown[1:])
    require(rest, Invariant.TOKENS, f"a logprob is missing: {shown}")


@check
def a_poll_waits_no_longer_than_it_may(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    for timeout in (0.0, 0.01):
        started = time.monotonic()
        came = observer.poll(timeout)
        took = time.monotonic() - started
        require(came == 0, Invariant.NOTHING_AFTER, "an idle engine had something to say")
        require(
            took < timeout + SLACK_SECONDS, Invariant.POLL, f"poll({timeout}) took {took:.2f} s"
        )


@check
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


@check
def a_dead_engine_wakes_its_caller_and_says_so(subject: Subject, engine: Engine) -> None:
    if subject.kill is None:
        return
    with subject.engine() as own:
        observer = subject.observe(own)
        observer.submit(subject.prompt(3), LONG)
        woken = threading.Event()
        own.on_ready(woken.set)
        subject.kill(own)
        deadline = time.monotonic() + subject.patience
        try:
            while time.monotonic() < deadline:
                require(woken.wait(subject.patience), Invariant.DEATH, "its caller was not woken")
                woken.clear()
                observer.poll(0)
        except EngineDead:
            return
        raise Violation(Invariant.DEATH, "poll never raised EngineDead")


@check
def an_error_harms_one_request(subject: Subject, engine: Engine) -> None:
    if subject.poison is None:
        return
    observer = subject.observe(engine)
    prompts = [subject.prompt(length) for length in range(3, 9)]
    alone = [alone_reply(observer, prompt, LONG).gist for prompt in prompts]
    crowd = [observer.submit(prompt, LONG) for prompt in prompts]
    poisoned = observer.submit(subject.poison, LONG)
    observer.until_over(poisoned, *crowd)
    require(poisoned.reply.finish is Finish.ERROR, Invariant.ONE_IS_HARMED, f"{poisoned.reply}")
    for observed, gist in zip(crowd, alone, strict=True):
        judge(subject, engine.info, observed)
        same(observed, gist, "beside a request that failed")
    stays_idle(subject, observer)


def finish_all(subject: Subject, observer: Observer, observed: Sequence[Observed]) -> None:
    """Wait for these, which must be all that is live, judge them, and see the engine idle."""
    observer.until_over(*observed)
    for each in observed:
        judge(subject, observer.engine.info, each)
    stays_idle(subject, observer)


def stays_idle(subject: Subject, observer: Observer) -> None:
    """Nothing more comes, and nothing is held."""
    for _ in range(3):
        observer.poll(0)
    deadline = time.monotonic() + subject.patience
    stats = observer.engine.stats()
    while stats.running or stats.waiting or stats.kv_blocks_used:
        # The numbers of an engine in another process may be a message behind.
        require(time.monotonic() < deadline, Invariant.NOTHING_LEFT, f"{stats} though idle")
        observer.poll(0.01)
        stats = observer.engine.stats()


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
    prompt = subject.prompt(rng.randint(1, 24))
    if rng.random() < 0.3:
        prompt = subject.decode(prompt, skip_special_tokens=True)
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
