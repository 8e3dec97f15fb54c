"""The echo engine: scripted answers without a model, for tests and for measuring the layer above.

One step gives every running choice its next token, and one poll makes at most one step. Without
latencies a step is due at once, so the engine is as fast as its caller polls; with them a poll
waits for the step that is due. All that a request will ever say is decided in `submit` (see
`lmi.engines.echo_script`), so that a step only hands out what is ready. The rule for a later
editor: nothing is added to the loop over the running choices in `_step`.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lmi.core import (
    OPTIONAL,
    BadPayload,
    Delta,
    EngineDead,
    EngineInfo,
    EngineStats,
    Finish,
    GenerationRequest,
    Token,
    TooLong,
    UnknownAdapter,
    Usage,
)
from lmi.engines.bound import BoundSpec, Progress
from lmi.engines.echo_alarm import Alarm
from lmi.engines.echo_script import VOCAB_SIZE, Answer, answer, encode, prompt_tokens

_NEVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class EchoConfig:
    """What is said, how fast, and how much at once.

    first_token_seconds: from a choice's admission to its first token. token_seconds: from one step
    to the next. max_batch: choices that run at once. kv_blocks: blocks of `block_size` tokens that
    the running choices share, None for as many as they can ever need. text: what every answer
    repeats, None for the request's own prompt. eos_after: tokens after which an answer ends by
    itself, None for never.
    """

    first_token_seconds: float = 0.0
    token_seconds: float = 0.0
    max_batch: int = 512
    max_model_len: int = 8192
    block_size: int = 16
    kv_blocks: int | None = None
    text: str | None = None
    eos_after: int | None = None


@dataclass(eq=False, slots=True)
class _Choice:
    """One choice of a live request. last_step: the step of its last token, 0 until it runs."""

    request_id: int
    index: int
    script: Answer
    prompt_length: int
    prompt: tuple[Token, ...]
    blocks: int
    last_step: int = 0

    def usage(self, said: int) -> Usage:
        return Usage(self.prompt_length, said)


class EchoEngine:
    """An `lmi.core.Engine` whose answers repeat the prompt.

    Deterministic: temperature and seed change nothing; choice k starts k tokens later in the
    prompt. Blocks for a whole answer are taken when a choice is admitted, in order of arrival.
    Logprobs are made up; the chosen token is always the most likely one.
    """

    def __init__(self, config: EchoConfig = EchoConfig()) -> None:
        self._config = config
        blocks_each = -(-config.max_model_len // config.block_size)
        self._blocks_total = config.kv_blocks or config.max_batch * blocks_each
        self._blocks_used = 0
        self._said_once = None if config.text is None else encode(config.text)
        self._live: dict[int, list[_Choice]] = {}
        self._waiting: OrderedDict[_Choice, None] = OrderedDict()
        self._prefilling: OrderedDict[_Choice, float] = OrderedDict()  # and when it may first speak
        self._running: dict[_Choice, tuple[int, int, Iterator[tuple[Token, ...]]]] = {}
        self._ending: dict[int, dict[_Choice, None]] = {}  # by the step of the last token
        self._cancelled: list[Delta] = []
        self._steps = 0
        self._next_step = 0.0
        self._wake: Callable[[], None] | None = None
        self._woken = False
        self._alarm: Alarm | None = None
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        config = self._config
        return EngineInfo(
            engine="echo",
            model="echo",
            max_model_len=config.max_model_len,
            vocab_size=VOCAB_SIZE,
            max_batch=config.max_batch,
            details=(
                ("first token", f"{config.first_token_seconds * 1e3:g} ms"),
                ("each token", f"{config.token_seconds * 1e3:g} ms"),
                ("KV blocks", f"{self._blocks_total} of {config.block_size} tokens"),
            ),
        )

    def submit(self, request: GenerationRequest, /) -> None:
        """Accept a request. Raises BadPayload, TooLong, UnknownAdapter, EngineDead when closed."""
        if self._closed:
            raise EngineDead("the echo engine is closed")
        if request.id in self._live:
            raise ValueError(f"request id {request.id} is live already")
        choices = self._script(request)
        self._live[request.id] = choices
        self._waiting.update(dict.fromkeys(choices))
        self._admit()
        self._announce()

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        """At most one step's deltas: none when the next step is more than `timeout` away."""
        if self._closed:
            raise EngineDead("the echo engine is closed")
        self._woken = False
        now = time.monotonic()
        due = self._due()
        if due > now and timeout > 0:
            time.sleep(min(timeout, due - now))
            now = time.monotonic()
        out, self._cancelled = self._cancelled, []
        if self._step_due() <= now:
            out += self._step(now)
        self._announce()
        return out

    def cancel(self, request_id: int, /) -> None:
        """End what is left of a request: the finishes are there for the next poll."""
        for choice in self._live.pop(request_id, ()):
            tokens = len(choice.script.tokens)
            said = tokens - (choice.last_step - self._steps) if choice.last_step else 0
            if choice in self._waiting:
                del self._waiting[choice]
            else:
                self._blocks_used -= choice.blocks
                self._prefilling.pop(choice, None)
                if choice in self._running:
                    del self._running[choice]
                    del self._ending[choice.last_step][choice]
            finish = (Finish.CANCELLED, choice.usage(said))
            self._cancelled.append(Delta(request_id, choice.index, (), *finish))
        self._admit()
        self._announce()

    def on_ready(self, wake: Callable[[], None], /) -> None:
        """`wake` is called once per step: at once where one is due, else by an alarm's thread."""
        self._wake = wake
        self._woken = False
        self._alarm = self._alarm or Alarm(self._ring)
        self._announce()

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running) + len(self._prefilling),
            waiting=len(self._waiting),
            kv_blocks_used=self._blocks_used,
            kv_blocks_total=self._blocks_total,
        )

    def close(self) -> None:
        self._closed = True
        if self._alarm is not None:
            self._alarm.close()
        for held in (self._live, self._waiting, self._prefilling, self._running, self._ending):
            held.clear()
        self._cancelled.clear()
        self._blocks_used = 0

    def _script(self, request: GenerationRequest) -> list[_Choice]:
        """The request's choices with all that they will say. Raises RequestError."""
        sampling = request.sampling
        if request.adapter is not None:
            raise UnknownAdapter(f"the echo engine has no adapters, so not {request.adapter!r}")
        for name in OPTIONAL:
            if getattr(sampling, name):
                raise BadPayload(f"{name}: the echo engine has nothing like it", field=name)
        for name, least in (("n", 1), ("max_new_tokens", 1), ("min_new_tokens", 0)):
            if (value := getattr(sampling, name)) < least:
                raise BadPayload(f"{name}={value}: expected at least {least}", field=name)
        prompt = request.prompt
        ids = encode(prompt) if isinstance(prompt, str) else prompt
        if request.truncate_prompt_tokens is not None:
            ids = ids[-request.truncate_prompt_tokens :]
        if not ids:
            raise BadPayload("the prompt is empty: expected at least one token", field="inputs")
        if not 0 <= min(ids) <= max(ids) < VOCAB_SIZE:
            raise BadPayload(
                f"a token id of the prompt is not in 0 to {VOCAB_SIZE - 1}", field="inputs"
            )
        room = self._config.max_model_len - len(ids)
        if room < 1:
            limit = self._config.max_model_len - 1
            raise TooLong(
                f"the prompt has {len(ids)} tokens: expected at most {limit}", field="inputs"
            )
        length = min(sampling.max_new_tokens, room)
        blocks = -(-(len(ids) + length) // self._config.block_size)
        if blocks > self._blocks_total:
            raise TooLong(
                f"prompt and answer need {blocks} KV blocks: there are {self._blocks_total}",
                field="inputs",
            )
        said = self._said_once or ids
        shown = prompt_tokens(ids, sampling.logprobs) if sampling.prompt_logprobs else ()
        return [
            _Choice(
                request_id=request.id,
                index=index,
                script=answer(
                    said[index % len(said) :] + said[: index % len(said)],
                    length,
                    sampling,
                    eos_after=self._config.eos_after,
                ),
                prompt_length=len(ids),
                prompt=() if index else shown,
                blocks=blocks,
            )
            for index in range(sampling.n)
        ]

    def _admit(self) -> None:
        """Start waiting choices, in order, while there is a place and blocks."""
        while self._waiting and len(self._running) + len(self._prefilling) < self._config.max_batch:
            choice = next(iter(self._waiting))
            if self._blocks_used + choice.blocks > self._blocks_total:
                return
            del self._waiting[choice]
            self._blocks_used += choice.blocks
            self._prefilling[choice] = time.monotonic() + self._config.first_token_seconds

    def _step_due(self) -> float:
        """When the next step is due, by `time.monotonic`."""
        if self._running:
            return self._next_step
        return next(iter(self._prefilling.values()), _NEVER)

    def _due(self) -> float:
        return 0.0 if self._cancelled else self._step_due()

    def _step(self, now: float) -> list[Delta]:
        """One token of every running choice."""
        self._next_step = max(self._step_due() + self._config.token_seconds, now)
        self._steps += 1
        started = self._start(now)
        ended = self._ending.pop(self._steps, ())
        rows = [self._running.pop(choice) for choice in ended]
        new, kind = tuple.__new__, Delta  # half the time of Delta(...)
        out = [
            new(kind, (request_id, index, next(tokens), None, None, None, ()))
            for request_id, index, tokens in self._running.values()
        ]
        for choice, row in zip(ended, rows, strict=True):
            out.append(self._last(choice, next(row[2])))
        for choice in started:
            if choice.prompt:
                _with_prompt(out, choice)
        self._admit()
        return out

    def _start(self, now: float) -> list[_Choice]:
        """Run those whose first token is due; their first step is this one."""
        started = []
        for choice, due in self._prefilling.items():
            if due > now:
                break
            choice.last_step = self._steps + len(choice.script.tokens) - 1
            self._running[choice] = (choice.request_id, choice.index, iter(choice.script.tokens))
            self._ending.setdefault(choice.last_step, {})[choice] = None
            started.append(choice)
        for choice in started:
            del self._prefilling[choice]
        return started

    def _last(self, choice: _Choice, tokens: tuple[Token, ...]) -> Delta:
        """A choice's last delta; its place and blocks are free."""
        self._blocks_used -= choice.blocks
        live = self._live[choice.request_id]
        live.remove(choice)
        if not live:
            del self._live[choice.request_id]
        script = choice.script
        usage = choice.usage(len(script.tokens))
        return Delta(choice.request_id, choice.index, tokens, script.finish, usage)

    def _announce(self) -> None:
        """Wake the caller once for what is due now, or have the alarm do so later."""
        if self._wake is None or self._woken:
            return
        due = self._due()
        if due <= time.monotonic():
            self._woken = True
            self._wake()
        elif due < _NEVER and self._alarm is not None:
            self._alarm.set(due)

    def _ring(self) -> None:
        if self._wake is not None:
            self._wake()


def load(bound: BoundSpec, progress: Progress) -> EchoEngine:
    """The loader of this engine's card: as many places and tokens as the configuration says."""
    progress("loading", 1, 1)
    config = EchoConfig(max_batch=bound.spec.max_rolling_batch_size)
    if bound.spec.max_model_len is not None:
        config = replace(config, max_model_len=bound.spec.max_model_len)
    return EchoEngine(config)


def _with_prompt(out: list[Delta], choice: _Choice) -> None:
    """Put a choice's prompt into its delta of this step."""
    for place, delta in enumerate(out):
        if delta.request_id == choice.request_id and delta.choice == choice.index:
            out[place] = delta._replace(prompt=choice.prompt)
            return
