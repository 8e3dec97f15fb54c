"""Checks of what an engine says: tokens, text and finishes, alone and in a crowd."""

from __future__ import annotations

import random
from dataclasses import replace

from lmi.core import Engine, Finish, Sampling
from tests.contract.driving import (
    LONG,
    alone_reply,
    finish_all,
    random_request,
    same,
    stays_idle,
    stop_over_two_tokens,
)
from tests.contract.observer import (
    Invariant,
    Observed,
    require,
)
from tests.contract.subject import Subject
from tests.contract.verdict import first_stop, judge


def one_token_is_one_delta(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    observed = observer.submit(subject.prompt(5), Sampling(max_new_tokens=1))
    finish_all(subject, observer, [observed])


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


def characters_of_several_tokens_come_out_whole(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    texts = ("a€b", "日本語のテキスト。", "naïve café 🙂👩‍👩‍👧", "\N{COMBINING ACUTE ACCENT}e")
    crowd = [observer.submit(text, replace(LONG, seed=4, temperature=1.5)) for text in texts]
    crowd += [
        observer.submit(text, replace(LONG, max_new_tokens=n)) for text in texts for n in (1, 2)
    ]
    finish_all(subject, observer, crowd)


def the_same_seed_gives_the_same_tokens(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    sampling = replace(LONG, temperature=1.0, seed=11)
    first = alone_reply(observer, subject.prompt(6), sampling)
    again = observer.submit(subject.prompt(6), sampling)
    finish_all(subject, observer, [again])
    same(again, first.gist, "with the same seed again")


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


def every_choice_has_its_own_finish(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    several = replace(LONG, n=3, best_of=3, temperature=1.0, seed=7)
    crowd = [observer.submit(subject.prompt(4), several) for _ in range(3)]
    crowd[-1].cancelled = True
    observer.poll(0)
    engine.cancel(crowd[-1].request.id)
    finish_all(subject, observer, crowd)


def the_prompt_comes_back_with_logprobs_where_asked(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    prompt = subject.prompt(9)
    sampling = Sampling(max_new_tokens=3, prompt_logprobs=True, logprobs=2, n=2, best_of=2)
    asked = observer.submit(prompt, sampling)
    plain = observer.submit(prompt, Sampling(max_new_tokens=3))
    finish_all(subject, observer, [asked, plain])
    require(not plain.reply.prompt, Invariant.TOKENS, "a prompt came back unasked")
    require(not asked.replies[1].prompt, Invariant.TOKENS, "it came with the second choice too")
    shown = asked.replies[0].prompt
    require(tuple(token.id for token in shown) == prompt, Invariant.TOKENS, f"{shown}")
    require(shown[0].logprob is None, Invariant.TOKENS, f"the first has a logprob: {shown[0]}")
    rest = all(token.logprob is not None and token.logprob <= 1e-6 for token in shown[1:])
    require(rest, Invariant.TOKENS, f"a logprob is missing: {shown}")
