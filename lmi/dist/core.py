"""LMI-Dist's core: `add` requests, `step`, and take the events. Ids in, ids out; no text.

The life of a request: add -> (admission) -> a Sequence per choice in the queue -> schedule -> one
packed forward pass -> sample -> an event per token -> finish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice

import torch

from lmi.core import EngineDead, EngineError, LmiError, OutOfMemory
from lmi.dist import admission
from lmi.dist.assembly import info_of, scheduler_of, size_of
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.cuda_graphs import graphed
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.dist.model import PagedModel
from lmi.dist.outcome import cancelled_event, error_event, token_event
from lmi.dist.plan import Plan, Segment
from lmi.dist.runner import Runner
from lmi.dist.runtimes import Progress, load_model
from lmi.dist.sampling import Picker, Sampled, Sampler
from lmi.dist.sequence import Sequence

__all__ = ["DistConfig", "EngineCore", "Progress"]

log = logging.getLogger(__name__)


def _silent(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class EngineCore:
    """One loaded model that serves token-level requests. All calls come from one thread."""

    def __init__(
        self,
        config: DistConfig,
        progress: Progress = _silent,
        *,
        collective: Collective | None = None,
        sampler: Callable[[Picker | None], Sampler] = Sampler,
        load: Callable[[DistConfig, Progress, Collective | None], PagedModel] = load_model,
    ) -> None:
        """Load the model. Raises ConfigError or ModelError; may take minutes.

        progress is called with a phase, what is done and the total (bytes for the weights).
        collective: of the ranks that compute this model together. sampler: makes what chooses the
        tokens, of the model's kernels; all ranks must come to the same. load: gives this rank's
        share of the model.
        """
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        model = load(config, progress, collective)
        facts = model.facts
        size = size_of(config, model, collective)
        progress("warm up", 0, 1)
        self._alone = collective is None
        self._facts = facts
        self._max_model_len = size.max_model_len
        self._runner = Runner(
            graphed(model, config, size.max_model_len, alone=self._alone),
            blocks=size.blocks,
            block_size=config.block_size,
            max_batch=config.max_batch,
            max_model_len=size.max_model_len,
        )
        self._runner.self_check(
            blocks=size.blocks, block_size=config.block_size, max_batch=config.max_batch
        )
        self._scheduler = scheduler_of(config, facts, size)
        progress("warm up", 1, 1)
        self._sampler = sampler(facts.kernels)
        self._requests: dict[int, list[Sequence]] = {}  # living choices
        self._news: list[CoreEvent] = []  # of cancels, until the next step
        self._steps = self._prompt_tokens = self._generated = self._cancelled = 0
        self.info = info_of(config, facts, size)

    @property
    def eos_ids(self) -> frozenset[int]:
        """The model's end tokens."""
        return self._facts.eos_ids

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._requests or self._news)

    def add(self, request: CoreRequest) -> None:
        """Queue a request, or raise RequestError (TooLong, BadPayload): then it leaves no trace."""
        if request.id in self._requests:
            raise EngineError(f"request id {request.id} is in use")
        admission.check(
            request, vocab_size=self._facts.vocab_size, max_model_len=self._max_model_len
        )
        choices = [
            Sequence.of(request, choice, eos_ids=self.eos_ids, max_model_len=self._max_model_len)
            for choice in range(request.choices)
        ]
        self._requests[request.id] = choices
        for sequence in choices:
            self._scheduler.add(sequence)

    def cancel(self, request_id: int, choice: int | None = None) -> None:
        """End all living choices, or the one given; their CANCELLED events come with the next step.
        What is unknown or over is ignored."""
        for sequence in list(self._requests.get(request_id, ())):
            if choice in (None, sequence.choice):
                self._cancelled += 1
                self._end(sequence)
                self._news.append(cancelled_event(sequence))

    def step(self) -> list[CoreEvent]:
        """One forward pass for all that run.

        Raises EngineDead when the device or another rank is lost; where there are other ranks, for
        every failure: they may have come through, and no two of them would be alike after that.
        """
        events, self._news = self._news, []
        plan = self._scheduler.schedule()
        self._scrub()
        if not plan:
            return events
        self._steps += 1
        try:
            logits = self._runner.run(plan)
            sampled = self._sample(plan, logits)
        except EngineDead:
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            log.exception("out of memory in a step")
            return events + self._fail(plan, OutOfMemory(f"out of memory: {error}"))
        except torch.AcceleratorError as error:
            raise EngineDead(f"the device failed: {error}") from error
        except Exception as error:  # the engine's loop: a broken step ends its requests, not it
            log.exception("a step failed")
            return events + self._fail(plan, EngineError(f"the forward pass failed: {error}"))
        self._advance(plan, sampled, events)
        return events

    def stats(self) -> CoreStats:
        """The load and the counts; cheap."""
        scheduler = self._scheduler
        return CoreStats(
            running=scheduler.running,
            waiting=scheduler.waiting,
            kv_blocks_used=scheduler.pool.used,
            kv_blocks_total=scheduler.pool.total,
            preemptions=scheduler.preemptions,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated,
            chunks=scheduler.chunks,
            cancelled=self._cancelled,
            reused_tokens=scheduler.reused_tokens,
            guessed_tokens=scheduler.guessed_tokens,
            accepted_tokens=scheduler.accepted_tokens,
        )

    def close(self) -> None:
        """Drop model and cache. Idempotent."""
        self._requests.clear()
        self.__dict__.pop("_runner", None)

    @torch.inference_mode()
    def _sample(self, plan: Plan, logits: torch.Tensor) -> list[Sampled]:
        row = 0
        for segment in plan.prefill:
            if segment.logprob_rows:
                row = self._take_prompt_logprobs(
                    segment.sequence, segment.logprob_rows, logits, row
                )
        rows = plan.rows
        return self._sampler.sample(logits[row:], rows) if rows else []

    @staticmethod
    def _take_prompt_logprobs(
        sequence: Sequence, rows: tuple[int, int], logits: torch.Tensor, row: int
    ) -> int:
        first, end = rows
        stop = row + end - first
        values = torch.log_softmax(logits[row:stop].float(), dim=-1)
        tokens = torch.tensor(sequence.tokens[first + 1 : end + 1], device=values.device)
        assert sequence.prompt_logprobs is not None
        sequence.prompt_logprobs += values.gather(1, tokens[:, None])[:, 0].tolist()
        return stop

    def _advance(self, plan: Plan, sampled: list[Sampled], events: list[CoreEvent]) -> None:
        results = iter(sampled)
        self._prompt_tokens += sum([sequence.pending == 1 for sequence in plan.admitted])
        for segment in plan.prefill:
            self._prompt_tokens += segment.stop - segment.start
            if segment.last:
                events.append(self._take(segment.sequence, segment.stop, next(results)))
            else:
                self._scheduler.computed(segment.sequence, segment.stop)
        for segment in plan.guessed:
            self._take_guessed(segment, list(islice(results, 1 + len(segment.guess))), events)
        events += [
            self._take(sequence, sequence.done + 1, result)
            for sequence, result in zip(plan.decode, results, strict=True)
        ]

    def _take_guessed(
        self, segment: Segment, results: list[Sampled], events: list[CoreEvent]
    ) -> None:
        """Take the rows up to the first whose guess was wrong: those behind it mean nothing."""
        accepted = 0
        for result, guess in zip(results, segment.guess, strict=False):
            if result.token != guess:
                break
            accepted += 1
        self._scheduler.judged(segment, accepted)
        for place, result in enumerate(results[: accepted + 1]):
            events.append(self._take(segment.sequence, segment.stop + place, result))
            if events[-1].finish is not None:
                return

    def _take(self, sequence: Sequence, done: int, result: Sampled) -> CoreEvent:
        """Append the token that was sampled after the first `done` tokens of a sequence."""
        if result.token is None:
            self._end(sequence, tainted=True)
            error = EngineError("the model gave no finite logits for this request")
            return error_event(sequence, error)
        self._scheduler.computed(sequence, done)
        event = token_event(sequence, result, self._facts.eos_ids)
        self._generated += 1
        if event.finish is not None:
            self._end(sequence)
        return event

    def _fail(self, plan: Plan, error: LmiError) -> list[CoreEvent]:
        if not self._alone:
            raise EngineDead(str(error)) from error
        events = []
        for sequence in plan.sequences:
            self._end(sequence, tainted=True)
            events.append(error_event(sequence, error))
        return events

    def _end(self, sequence: Sequence, *, tainted: bool = False) -> None:
        """Forget a sequence. tainted: its KV may hold numbers that are not finite."""
        self._scheduler.remove(sequence, tainted=tainted)
        self._scrub()
        self._sampler.forget(sequence)
        living = self._requests[sequence.request.id]
        living.remove(sequence)
        if not living:
            del self._requests[sequence.request.id]

    def _scrub(self) -> None:
        """Zero the tainted blocks that their last owner gave back, by its end or by preemption."""
        if dirty := self._scheduler.pool.take_dirty():
            self._runner.scrub(dirty)
