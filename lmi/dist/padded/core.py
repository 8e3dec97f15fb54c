"""The fallback's core: a `lmi.dist.engine.Core` over padded batches of a model's own generation.

The life of a request: add -> (admission) -> a row per choice in the queue -> a batch that forms
when the one before is over -> one pass per step for all its rows -> an event per row and token.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

import torch
from msgspec.structs import replace

from lmi.core import BadPayload, EngineDead, EngineError, EngineInfo, LmiError, OutOfMemory
from lmi.dist import admission
from lmi.dist.config import DistConfig
from lmi.dist.device import free_memory
from lmi.dist.engine import Progress, silent
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.dist.outcome import cancelled_event, error_event, token_event
from lmi.dist.padded.batch import Batch
from lmi.dist.padded.forming import Former, Together
from lmi.dist.padded.model import PaddedModel, load
from lmi.dist.padded.row import Row
from lmi.dist.sampling import Sampled, Sampler
from lmi.dist.sequence import Sequence
from lmi.dist.sizing import CUDA_SHARE, HOST_SHARE

log = logging.getLogger(__name__)

_COST: Final = (
    "a batch admits only at its start and runs until its last answer ends; new requests wait"
)


class PaddedCore:
    """One loaded model that serves token-level requests. All calls come from one thread."""

    def __init__(
        self,
        config: DistConfig,
        progress: Progress = silent,
        *,
        why: str = "asked for by the configuration",
    ) -> None:
        """Load the model. Raises ConfigError or ModelError; may take minutes.

        progress is called with a phase, what is done and the total (bytes for the weights). why:
        the reason that no better runtime serves it, for the log.
        """
        _refuse_what_needs_pages(config)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with torch.inference_mode():
            self._model = load(config, progress)
        self._former = Former(
            together=self._model.trial.together,
            max_rows=config.max_batch,
            cost=self._model.trial.cost,
            budget=_budget(config, self._model),
        )
        self._waiting: OrderedDict[tuple[int, int], Row] = OrderedDict()
        self._batch: Batch | None = None
        self._requests: dict[int, list[Row]] = {}  # living choices
        self._news: list[CoreEvent] = []  # of cancels, until the next step
        self._sampler = Sampler()
        self._steps = self._prompt_tokens = self._generated = self._cancelled = 0
        self.info = _info(config, self._model, self._former, why)
        log.warning("%s runs on the fallback (%s): %s", config.model.name, why, _COST)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._requests or self._news)

    def add(self, request: CoreRequest) -> None:
        """Queue a request, or raise RequestError (TooLong, BadPayload): then it leaves no trace."""
        if request.id in self._requests:
            raise EngineError(f"request id {request.id} is in use")
        model = self._model
        admission.check(request, vocab_size=model.vocab_size, max_model_len=model.limits.context)
        seen = request
        if model.encodes:
            if request.prompt_logprobs:
                raise BadPayload(
                    "an encoder reads the prompt: its tokens have no probabilities; expected "
                    "prompt_logprobs to be off for this model",
                    field="prompt_logprobs",
                )
            seen = replace(request, prompt=model.trial.start)
        rows = [
            Row(
                request.prompt,
                Sequence.of(seen, choice, eos_ids=model.eos_ids, max_model_len=model.limits.answer),
            )
            for choice in range(request.choices)
        ]
        self._requests[request.id] = rows
        for row in rows:
            self._waiting[row.key] = row

    def cancel(self, request_id: int, choice: int | None = None) -> None:
        """End a request's living choices, or one of them; their CANCELLED events come with the next
        step. One that is unknown or over is ignored."""
        for row in list(self._requests.get(request_id, ())):
            if choice is None or row.sequence.choice == choice:
                self._cancelled += 1
                self._end(row)
                self._news.append(cancelled_event(row.sequence))

    @torch.inference_mode()
    def step(self) -> list[CoreEvent]:
        """One pass for the batch that runs. Raises EngineDead when the device is lost."""
        events, self._news = self._news, []
        if self._batch is None and not self._waiting:
            return events
        self._steps += 1
        try:
            batch = self._batch or self._form()
            sampled = batch.step(self._sampler)
        except (MemoryError, torch.OutOfMemoryError) as error:
            log.exception("out of memory in a step")
            return events + self._fail(OutOfMemory(f"out of memory: {error}"))
        except torch.AcceleratorError as error:
            raise EngineDead(f"the device failed: {error}") from error
        except Exception as error:  # the engine's loop: a broken step ends its requests, not it
            log.exception("a step failed")
            return events + self._fail(EngineError(f"the forward pass failed: {error}"))
        events += [self._take(row, result) for row, result in sampled]
        return events

    def stats(self) -> CoreStats:
        """The load and the counts; cheap. There are no KV blocks."""
        living = sum(map(len, self._requests.values()))
        return CoreStats(
            running=living - len(self._waiting),
            waiting=len(self._waiting),
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated,
            cancelled=self._cancelled,
        )

    def close(self) -> None:
        """Drop the model and its state. Idempotent."""
        self._requests.clear()
        self._waiting.clear()
        self._batch = None
        self.__dict__.pop("_model", None)

    def _form(self) -> Batch:
        rows = self._former.form(self._waiting.values())
        for row in rows:
            del self._waiting[row.key]
        self._batch = Batch(self._model, rows)
        self._prompt_tokens += sum(len(row.source) for row in rows)
        return self._batch

    def _take(self, row: Row, result: Sampled) -> CoreEvent:
        """Append the token that was sampled for a row."""
        sequence = row.sequence
        if result.token is None:
            self._end(row)
            error = EngineError("the model gave no finite logits for this request")
            return error_event(sequence, error)
        event = token_event(sequence, result, self._model.eos_ids)
        self._generated += 1
        if event.finish is not None:
            self._end(row)
        return event

    def _fail(self, error: LmiError) -> list[CoreEvent]:
        """End all rows of the batch under way."""
        living = self._batch.living if self._batch is not None else []
        for row in living:
            self._end(row)
        return [error_event(row.sequence, error) for row in living]

    def _end(self, row: Row) -> None:
        if self._waiting.pop(row.key, None) is None:
            assert self._batch is not None, "a row waits or runs"
            self._batch.remove(row)
            if not self._batch.living:
                self._batch = None
        self._sampler.forget(row.sequence)
        living = self._requests[row.sequence.request.id]
        living.remove(row)
        if not living:
            del self._requests[row.sequence.request.id]


def _refuse_what_needs_pages(config: DistConfig) -> None:
    """Raise ConfigError for options that only the paged runtimes have."""
    if config.tensor_parallel > 1:
        raise config.error("tensor_parallel", "the fallback runs on one rank: expected 1")
    if config.kv_cache_dtype != "auto":
        raise config.error(
            "kv_cache_dtype", "transformers keeps the fallback's K and V: expected auto"
        )
    if config.prefix_cache:
        raise config.error("prefix_cache", "the fallback keeps no KV blocks: expected false")
    if config.speculative_tokens:
        raise config.error("speculative_tokens", "the fallback does not speculate: expected 0")
    if config.kernels not in ("auto", "plain"):
        raise config.error("kernels", "the fallback computes with torch: expected auto or plain")


def _budget(config: DistConfig, model: PaddedModel) -> int:
    """Bytes that a batch's state may take."""
    if config.kv_cache_bytes is not None:
        return config.kv_cache_bytes
    cost = model.trial.cost
    if config.kv_blocks is not None:
        per_token = max(cost.read, cost.generated)
        return config.max_batch * cost.row + config.kv_blocks * config.block_size * per_token
    share = CUDA_SHARE if model.device.type == "cuda" else HOST_SHARE
    return int(free_memory(model.device) * share)


def _info(config: DistConfig, model: PaddedModel, former: Former, why: str) -> EngineInfo:
    limits, trial = model.limits, model.trial
    context = f"{limits.context} tokens"
    if model.encodes:
        context = f"{limits.context} tokens of prompt, {limits.answer} of answer"
    rows = 1 if trial.together is Together.ALONE else config.max_batch
    details = [
        ("device", str(model.device)),
        ("dtype", str(model.dtype).removeprefix("torch.")),
        ("runtime", f"generate, the fallback ({why})"),
        ("threads", str(torch.get_num_threads())),
        ("batches", f"up to {rows} rows, {trial.together.value}"),
        ("cost", _COST),
        ("rows that end", "leave the batch" if trial.drops else "stay in it, computed in vain"),
        ("context", context),
        ("state", f"up to {former.budget / 2**20:.0f} MiB"),
        ("prefill", "whole prompts at once"),
    ]
    if model.ignored:
        details.append(("not used of generation_config.json", ", ".join(model.ignored)))
    return EngineInfo(
        engine="lmi-dist",
        model=config.model.name,
        max_model_len=limits.context,
        vocab_size=model.vocab_size,
        max_batch=config.max_batch,
        details=tuple(details),
    )
