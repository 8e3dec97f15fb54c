"""Judges a request that is over: its tokens, its finish and its text."""

from __future__ import annotations

from collections.abc import Sequence

from lmi.core import EngineInfo, Finish, Sampling
from tests.contract.observer import Invariant, Observed, Reply, Violation, require
from tests.contract.subject import Subject


def judge(subject: Subject, info: EngineInfo, observed: Observed) -> None:
    """Raises Violation. The request must be over and have been one that the engine can serve."""
    for index, reply in enumerate(observed.replies):
        who = f"request {observed.request.id}, choice {index}"
        _judge_finish(observed, reply, who)
        _judge_tokens(subject, info, observed, reply, who)
        _judge_logprobs(observed.request.sampling, reply, who)
        _judge_text(subject, observed.request.sampling, reply, who)


def _judge_finish(observed: Observed, reply: Reply, who: str) -> None:
    if reply.finish is Finish.ERROR:
        raise Violation(Invariant.ONE_IS_HARMED, f"{who} failed: {reply.error}")
    if reply.finish is Finish.CANCELLED and not observed.cancelled:
        raise Violation(Invariant.CANCEL, f"{who} ended as cancelled, but nobody cancelled it")
    require(reply.usage is not None, Invariant.ONE_FINISH, f"{who}: its last delta has no usage")


def _judge_tokens(
    subject: Subject, info: EngineInfo, observed: Observed, reply: Reply, who: str
) -> None:
    request, sampling = observed.request, observed.request.sampling
    assert reply.usage is not None
    said, prompt = len(reply.tokens), reply.usage.prompt_tokens
    ids = subject.encode(request.prompt) if isinstance(request.prompt, str) else request.prompt
    kept = min(len(ids), request.truncate_prompt_tokens or len(ids))
    require(prompt == kept, Invariant.TOKENS, f"{who}: usage says {prompt} prompt tokens of {kept}")
    counted = reply.usage.completion_tokens
    require(counted == said, Invariant.TOKENS, f"{who}: usage counts {counted}, {said} came")
    most = sampling.max_new_tokens
    require(said <= most, Invariant.TOKENS, f"{who}: {said} tokens, asked for at most {most}")
    if reply.finish is Finish.LENGTH:
        full = said == most or prompt + said >= info.max_model_len
        require(full, Invariant.TOKENS, f"{who}: ended for its length after {said} of {most}")
    if reply.finish in (Finish.EOS, Finish.STOP):
        enough = said >= sampling.min_new_tokens
        require(enough, Invariant.TOKENS, f"{who}: stopped before min_new_tokens, after {said}")
    in_range = all(0 <= token_id < info.vocab_size for token_id in reply.ids)
    require(in_range, Invariant.TOKENS, f"{who}: an id is not in the vocabulary: {reply.ids}")


def _judge_logprobs(sampling: Sampling, reply: Reply, who: str) -> None:
    asked = sampling.logprobs
    for place, token in enumerate(reply.tokens):
        ranked = [top.logprob for top in token.top]
        if asked is None:
            right = token.logprob is None and not ranked
        else:
            right = token.logprob is not None and token.logprob <= 1e-6 and len(ranked) == asked
        if not right or ranked != sorted(ranked, reverse=True):
            what = f"{who}, token {place}, asked for logprobs={asked}, best first: {token}"
            raise Violation(Invariant.TOKENS, what)


def _judge_text(subject: Subject, sampling: Sampling, reply: Reply, who: str) -> None:
    if reply.finish is Finish.CANCELLED:
        # What was held back stays unsaid, and a character may have been open.
        whole = subject.decode(reply.ids, skip_special_tokens=sampling.skip_special_tokens)
        require(whole.startswith(reply.text), Invariant.TEXT, f"{who}: {reply.text!r}")
        return
    expected = expected_text(subject, sampling, reply.ids, reply.finish)
    same = reply.text == expected
    require(same, Invariant.TEXT, f"{who}: said {reply.text!r}, should say {expected!r}")


def expected_text(
    subject: Subject, sampling: Sampling, ids: Sequence[int], finish: Finish | None
) -> str:
    """What these tokens say as a whole. Raises Violation where they should have stopped earlier."""

    def decode(some: Sequence[int]) -> str:
        return subject.decode(some, skip_special_tokens=sampling.skip_special_tokens)

    text = decode(ids)
    match = first_stop(text, sampling.stop) if sampling.min_new_tokens == 0 else None
    if match is not None and finish is Finish.STOP:
        start, end = match
        return text[: end if sampling.include_stop_text else start]
    require(match is None, Invariant.TEXT, f"{text!r} holds a stop string, yet ended by {finish}")
    ended_by_id = finish in (Finish.EOS, Finish.STOP)
    return decode(ids[:-1]) if ended_by_id and not sampling.include_stop_text else text


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, int] | None:
    """Start and end of the stop string that is complete first; of several, the longest."""
    places = [(text.find(stop), stop) for stop in stops]
    found = [(start + len(stop), start) for start, stop in places if start >= 0]
    if not found:
        return None
    end, start = min(found)
    return start, end
