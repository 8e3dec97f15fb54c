"""The handler of transformers models: any task, without an engine of ours.

`HuggingFaceService` is also what users' model.py files wrap or subclass. Requests of a dynamic
batch that have equal parameters are computed together; one that fails, fails alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lmi.core import LmiError, ModelError
from lmi.custom.api.encode_decode import decode, encode
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock import generation, tasks
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded

if TYPE_CHECKING:
    from lmi.custom.stock.in_process import InProcess

log = logging.getLogger(__name__)

_JSON: Final = "application/json"
_NO_ADAPTERS: Final = "adapters need an engine (option.rolling_batch); this model has none"


class Asked(NamedTuple):
    """One request. inputs: as the model takes them. single: whether it was one, not a list."""

    inputs: list[Any]
    single: bool
    parameters: dict[str, Any]
    streamed: bool


class HuggingFaceService:
    """One model. hf_pipeline: inputs and parameters to results; hf_pipeline_unwrapped: of
    transformers, where the task is one of its pipelines. rolling_batch: an engine in this process,
    where the option of that name asks for one; then there is no model and no pipeline here."""

    def __init__(self) -> None:
        self.initialized = False
        self.hf_configs: HuggingFaceOptions | None = None
        self.hf_pipeline: Any = None
        self.hf_pipeline_unwrapped: Any = None
        self.model: Any = None
        self.tokenizer: Any = None
        self.model_config: Any = None
        self.task: str | None = None
        self.rolling_batch: InProcess | None = None
        self.adapter_registry: dict[str, Input] = {}
        self._format_input: Any = None
        self._format_output: Any = None

    def initialize(self, properties: Mapping[str, Any]) -> None:
        """Load the model. Raises ConfigError or ModelError."""
        settings = self.hf_configs = HuggingFaceOptions.read(properties)
        if settings.rolling_batch is not None:
            # A module of its own: most uses of a service need no engine of ours.
            from lmi.custom.stock.in_process import InProcess

            self.rolling_batch = InProcess.load(properties)
            self.initialized = True
            return
        self.task = settings.task or self._infer_task(settings)
        loaded = self._load(self.task, settings)
        self.hf_pipeline, self.hf_pipeline_unwrapped = loaded.predict, loaded.pipeline
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.model_config = getattr(loaded.model, "config", None)
        self._format_input = properties.get("input_formatter")
        self._format_output = properties.get("output_formatter")
        self.initialized = True

    def inference(self, inputs: Input) -> Output:
        """Answer a request, or a dynamic batch with an item for each of its requests."""
        if not inputs.is_batch():
            return self.answers([inputs])[0]
        output = Output()
        for index, each in enumerate(self.answers(inputs.get_batches())):
            content = each.content
            output.add(b"" if content.is_empty() else content.value_at(0), "data", index)
            output.properties |= each.properties
        return output

    def answers(self, requests: list[Input]) -> list[Output]:
        """An answer for each request, in order."""
        if self.rolling_batch is not None:
            from lmi.custom.stock import engine_service

            return engine_service.answers(self.rolling_batch, requests)
        alone = len(requests) == 1
        found: list[Output | None] = [None] * len(requests)
        groups: dict[str, list[tuple[int, Asked]]] = {}
        for place, request in enumerate(requests):
            try:
                asked = self._read(request)
                if asked.streamed:
                    found[place] = self._stream(asked)
                else:
                    groups.setdefault(_key(asked.parameters), []).append((place, asked))
            except Exception as error:  # whatever a user's formatter may raise
                if alone:
                    raise
                found[place] = _failed(error)
        for members in groups.values():
            for place, result in self._predict(members, alone):
                if isinstance(result, Output):
                    found[place] = result
                else:
                    found[place] = self._write(requests[place], result)
        return [each for each in found if each is not None]

    def handle(self, inputs: Input) -> Output | list[Output] | None:
        """Load the model at the first call, and answer requests: a batch with a list."""
        if not self.initialized:
            self.initialize(inputs.get_properties())
        if inputs.is_empty():
            return None
        return self.answers(inputs.get_batches()) if inputs.is_batch() else self.inference(inputs)

    def infer_task_from_model_architecture(self) -> str:
        """The task that the model's first architecture is for. Raises ConfigError."""
        return tasks.infer(getattr(self.model_config, "architectures", None))

    def _infer_task(self, settings: HuggingFaceOptions) -> str:
        from transformers import AutoConfig

        try:
            self.model_config = AutoConfig.from_pretrained(
                settings.model_id_or_path, **settings.tokenizing()
            )
        except (OSError, ValueError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"{settings.model_id_or_path}: {first}") from error
        return self.infer_task_from_model_architecture()

    def _load(self, task: str, settings: HuggingFaceOptions) -> Loaded:
        return tasks.load(task, settings)

    def _read(self, request: Input) -> Asked:
        body = decode(request, request.get_property("Content-Type"))
        if self._format_input is not None:
            body = self._format_input(request)
        assert self.hf_configs is not None
        parameters: dict[str, Any] = {}
        streamed = self.hf_configs.streaming
        if isinstance(body, dict):
            parameters = body.get("parameters") or {}
            streamed = streamed or body.get("stream") is True
            body = body.get("inputs", {k: v for k, v in body.items() if k != "parameters"})
        if not isinstance(parameters, dict):
            raise ValueError("parameters: expected an object")
        single = not isinstance(body, list)
        return Asked([body] if single else body, single, parameters, streamed)

    def _predict(self, members: list[tuple[int, Asked]], alone: bool) -> list[tuple[int, Any]]:
        """Results of requests with equal parameters; where they fail together, one by one."""
        together = [each for _, asked in members for each in asked.inputs]
        try:
            results = self.hf_pipeline(together, **members[0][1].parameters)
        except Exception as error:  # whatever a model may raise
            if alone:
                raise
            if len(members) == 1:
                return [(members[0][0], _failed(error))]
            return [found for member in members for found in self._predict([member], False)]
        shared, at = [], 0
        for place, asked in members:
            part = results[at : at + len(asked.inputs)]
            at += len(asked.inputs)
            shared.append((place, self._shaped(part, asked.single)))
        return shared

    def _shaped(self, results: list[Any], single: bool) -> Any:
        """A request's results as its clients expect them. single: it asked one input, no list."""
        # The candidates for one mask are the answer; those for several texts, a list of them.
        flat = single and self.task == "fill-mask" and isinstance(results[0], list)
        return results[0] if flat else results

    def _stream(self, asked: Asked) -> Output:
        if self.task not in ("text-generation", "text2text-generation"):
            raise ValueError(f"stream: the task {self.task} answers as a whole")
        assert self.hf_configs is not None
        pieces = generation.stream(
            self.model, self.tokenizer, asked.inputs, self.hf_configs.stop, **asked.parameters
        )
        output = Output().add_property("content-type", "application/jsonlines")
        return output.add_stream_content([piece] for piece in pieces)

    def _write(self, request: Input, result: Any) -> Output:
        if self._format_output is not None:
            written = self._format_output(result)
            return written if isinstance(written, Output) else Output().add(written)
        accept = request.get_property("Accept")
        if not accept:
            kind = request.get_property("Content-Type") or _JSON
            accept = kind if kind.startswith("tensor/") else _JSON
        return encode(Output(), result, _JSON if "*/*" in accept else accept)


def _key(parameters: dict[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def _failed(error: Exception) -> Output:
    log.error("a request of a batch failed", exc_info=error)
    return Output().error(str(error) or type(error).__name__)


_service = HuggingFaceService()


def handle(inputs: Input) -> Output | list[Output] | None:
    """Load the model at the first call, and answer requests."""
    return _service.handle(inputs)


def register_adapter(inputs: Input) -> Output:
    """Refuses: see the message."""
    raise LmiError(_NO_ADAPTERS)


def update_adapter(inputs: Input) -> Output:
    """Refuses: see the message."""
    raise LmiError(_NO_ADAPTERS)


def unregister_adapter(inputs: Input) -> Output:
    """Refuses: see the message."""
    raise LmiError(_NO_ADAPTERS)
