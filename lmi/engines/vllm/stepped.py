"""vLLM's engine, stepped: the only module that imports vLLM and knows its inside.

The public `LLMEngine` builds it. Then its input half (which checks a request) and its core (the
scheduler and the model) are used directly: its output half would make text, and an object with the
whole answer so far, out of what our own front half makes both of again. What differs between
releases is looked for here, when the engine is built.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import torch
import vllm
import vllm.exceptions
from pydantic import ValidationError
from vllm import SamplingParams, inputs, sampling_params
from vllm.engine.arg_utils import EngineArgs, FlexibleArgumentParser
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.v1.engine.llm_engine import LLMEngine

from lmi.core import (
    BadPayload,
    ConfigError,
    EngineInfo,
    Grammar,
    ModelError,
    OutOfMemory,
    UnknownAdapter,
)
from lmi.dist.engine import Progress
from lmi.dist.messages import CoreRequest, CoreStats
from lmi.engines.vllm.sampling import constraint, fields

log = logging.getLogger("lmi.engines.vllm")

OUT_OF_MEMORY: Final = (torch.OutOfMemoryError, MemoryError)

# What a request is refused with: a class of its own in newer releases, ValueError in older ones.
_REFUSAL: Final = (ValueError, getattr(vllm.exceptions, "VLLMClientError", ValueError))
# What loading an adapter fails with: vLLM's checks, a file that is gone, shapes that don't fit.
_BAD_ADAPTER: Final = (*_REFUSAL, OSError, RuntimeError, LookupError, AssertionError)
_EXIT_RANK_LOST: Final = 70  # EX_SOFTWARE of sysexits.h


class Stepped:
    """One model in vLLM. Names are the caller's, fresh for each choice."""

    def __init__(self, words: Sequence[str], progress: Progress) -> None:
        """Load it. words: of vLLM's command line.

        Raises ConfigError for arguments that vLLM refuses, ModelError for a model that it can't run
        with them.
        """
        progress("reading the configuration", 0, 0)
        self._config = _configure(words)
        if self._config.lora_config is not None and current_platform.is_cpu():
            _mend_plain_lora(self._config.parallel_config.world_size)
        progress("loading weights and making the KV cache", 0, 0)
        try:
            self._engine = LLMEngine.from_vllm_config(self._config, disable_log_stats=True)
        except _REFUSAL as error:
            raise ModelError(f"vLLM can't run the model: {_first_line(error)}") from error
        self._inputs = _either(self._engine, "input_processor", "processor")
        self._client = self._engine.engine_core
        self._core = self._client.engine_core
        self._scheduler = self._core.scheduler
        self._more = _named(self._inputs.process_inputs, supported_tasks=self._tasks)
        self._as_input = _either(inputs, "tokens_input", "token_inputs")
        self._requests: dict[str, Any] = {}  # the scheduler's own objects
        self._preemptions = 0  # of those that are over
        self._core.model_executor.register_failure_callback(_rank_lost)

    def _tasks(self) -> Any:
        return self._engine.get_supported_tasks()

    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""
        model, cache = self._config.model_config, self._config.cache_config
        blocks = f"{cache.num_gpu_blocks} blocks of {cache.block_size} tokens"
        return EngineInfo(
            engine="vllm",
            model=str(model.model),
            max_model_len=model.max_model_len,
            vocab_size=model.get_vocab_size(),
            max_batch=self._config.scheduler_config.max_num_seqs,
            details=(
                ("vllm", vllm.__version__),
                ("dtype", str(model.dtype).removeprefix("torch.")),
                ("KV cache", blocks),
                ("ranks", str(self._config.parallel_config.world_size)),
            ),
        )

    def add(self, names: Sequence[str], request: CoreRequest, adapter: LoRARequest | None) -> None:
        """Queue all choices of a request, or none. Raises BadPayload."""
        prompt = self._as_input(list(request.prompt))
        grammar = request.grammar
        try:
            checked = [
                self._check(name, prompt, _sampling(fields(request, choice), grammar), adapter)
                for choice, name in enumerate(names)
            ]
        except _REFUSAL as error:
            field = getattr(error, "parameter", None) or ("grammar" if grammar else None)
            raise BadPayload(
                f"vLLM refuses the request: {_first_line(error)}", field=field
            ) from None
        for name, each in zip(names, checked, strict=True):
            self._client.add_request(each)
            self._requests[name] = self._scheduler.requests[name]

    def _check(
        self, name: str, prompt: Any, params: SamplingParams, adapter: LoRARequest | None
    ) -> Any:
        made = self._inputs.process_inputs(
            name,
            prompt,
            params,
            lora_request=adapter,
            **{k: get() for k, get in self._more.items()},
        )
        return made[1] if isinstance(made, tuple) else made  # older ones give the text as well

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything, be it only to tell the model what is over."""
        return bool(self._scheduler.has_requests() or self._core.batch_queue)

    def step(self) -> Sequence[Any]:
        """One step; what it brought for each choice, as vLLM's EngineCoreOutput."""
        return self._client.get_output().outputs  # type: ignore[no-any-return]

    def over(self, name: str) -> None:
        """A choice is over."""
        self._preemptions += getattr(self._requests.pop(name), "num_preemptions", 0)

    def abort(self, names: list[str]) -> None:
        """End choices; no output comes of them any more."""
        self._client.abort_requests(names)

    def stats(self) -> CoreStats:
        """The load now."""
        scheduler = self._scheduler
        pool = scheduler.kv_cache_manager.block_pool
        total = pool.num_gpu_blocks - 1  # one stands for no block at all
        running = len(scheduler.running)
        return CoreStats(
            running=running,
            waiting=scheduler.get_num_unfinished_requests() - running,
            kv_blocks_used=total - pool.get_num_free_blocks(),
            kv_blocks_total=total,
            preemptions=self._preemptions,
        )

    @property
    def dies_of_prompt_logprobs(self) -> bool:
        """Whether a prompt's logprobs beside adapters end the engine: its plain operators, which it
        has on the CPU, expect one row for each request there."""
        return bool(current_platform.is_cpu())

    def load_adapter(self, adapter: LoRARequest) -> None:
        """Load a LoRA adapter, if it isn't. Raises UnknownAdapter for one that vLLM can't load."""
        if adapter.lora_int_id in self._client.list_loras():
            return
        try:
            self._client.add_lora(adapter)
        except OUT_OF_MEMORY as error:
            raise OutOfMemory(f"no memory for the adapter: {error}") from error
        except _BAD_ADAPTER as error:
            self.remove_adapter(adapter.lora_int_id)  # it may have been loaded in part
            name = adapter.lora_name.rpartition("#")[0]
            raise UnknownAdapter(
                f"adapter {name!r}: vLLM can't load it: {_first_line(error)}", field="src"
            ) from error

    def pin_adapter(self, number: int) -> None:
        """Never give a loaded adapter's place to another."""
        self._client.pin_lora(number)

    def remove_adapter(self, number: int) -> None:
        """Give an adapter's place back; one that is not loaded is ignored."""
        if number in self._client.list_loras():
            self._client.remove_lora(number)

    def close(self) -> None:
        """End vLLM's own processes and give its memory back."""
        self._client.shutdown()


def adapter_request(name: str, number: int, folder: str) -> LoRARequest:
    """An adapter as vLLM is told of it. number: from 1, never used for another."""
    return LoRARequest(lora_name=name, lora_int_id=number, lora_path=folder)


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]
    """vLLM's parser, which raises where a command would end."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError("option.rolling_batch", "vllm", "the configuration", f"vLLM: {message}")


def engine_arguments(words: Sequence[str]) -> EngineArgs:
    """vLLM's arguments out of the words of its command line. Raises ConfigError."""
    found, unknown = parser().parse_known_args(list(words))
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0].replace("-", "_")
        want = "this release has no word for it on its command line"
        raise ConfigError(f"option.{name}", None, "the configuration", want)
    return EngineArgs.from_cli_args(found)


def parser() -> FlexibleArgumentParser:
    """Of the words that an engine is told."""
    return EngineArgs.add_cli_args(_Parser(prog="vllm", add_help=False))


def _configure(words: Sequence[str]) -> Any:
    try:
        return engine_arguments(words).create_engine_config()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        want = f"vLLM refuses this configuration: {where}: {first['msg']}"
        raise ConfigError("option.rolling_batch", "vllm", "the configuration", want) from error
    except _REFUSAL as error:
        want = f"vLLM refuses this configuration: {_first_line(error)}"
        raise ConfigError("option.rolling_batch", "vllm", "the configuration", want) from error


def _mend_plain_lora(ranks: int) -> None:
    if ranks > 1:
        want = "on a CPU vLLM mixes up adapters with several ranks; expected 1"
        raise ConfigError("option.tensor_parallel_degree", str(ranks), "the configuration", want)
    from lmi.engines.vllm.plain_lora import mend

    mend()


def _sampling(values: dict[str, Any], grammar: Grammar | None) -> SamplingParams:
    if grammar is None:
        return SamplingParams(**values)
    kind = getattr(sampling_params, "StructuredOutputsParams", None)
    if kind is not None:
        return SamplingParams(**values, structured_outputs=kind(**constraint(grammar)))
    guided = sampling_params.GuidedDecodingParams(**constraint(grammar))
    return SamplingParams(**values, guided_decoding=guided)


def _either(owner: Any, newer: str, older: str) -> Any:
    """An attribute that has been renamed. Raises ConfigError where this vLLM has neither."""
    found = getattr(owner, newer, None) or getattr(owner, older, None)
    if found is None:
        want = f"this release has neither {newer} nor {older}: use one that docs/vllm.md names"
        raise ConfigError("vllm", vllm.__version__, "the installed package", want)
    return found


def _named(function: Any, **values: Any) -> dict[str, Any]:
    """Those of `values` that a function has a parameter for."""
    return {k: v for k, v in values.items() if k in inspect.signature(function).parameters}


def _first_line(error: BaseException) -> str:
    """What an error says. `str` of vLLM's own adds the request's value, which may be long."""
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__


def _rank_lost() -> None:
    """One of the ranks that vLLM started is gone: vLLM would notice at its next step only."""
    log.critical("one of vLLM's ranks is gone: the worker ends")
    os._exit(_EXIT_RANK_LOST)
