"""What a form of the dialect consists of; each form's module fills one of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lmi.core import Finish, LmiError
from lmi.schemas.assemble import Transcript
from lmi.schemas.body import LmiParameters
from lmi.schemas.parsed import Reply
from lmi.schemas.shape import Shape


@dataclass(frozen=True, slots=True)
class Dialect:
    """The parts of a form that differ from form to form.

    temperature: of a request's parameters, 0 for greedy. words: for finish reasons. render,
    render_error: an input's object in a whole answer; end: what follows the body. streams: the
    replies that release bytes token by token, by formatter; one for "json" is used only when the
    body asks for a stream. stream_formatter: what a stream has when nobody chose. chooses: whether
    a request can choose its formatter. streams_choices: whether several choices can be streamed.
    logprob_key, mark_special, details: see `Shape`; details here is the default.
    """

    temperature: Callable[[LmiParameters], float]
    words: Mapping[Finish, str]
    render: Callable[[Shape, Transcript, int], object]
    render_error: Callable[[LmiError], object]
    streams: Mapping[str, Callable[[Shape], Reply]]
    end: str = ""
    stream_formatter: str = "jsonlines"
    chooses: bool = True
    streams_choices: bool = False
    logprob_key: str = "log_prob"
    mark_special: bool = False
    details: bool = False
