"""DeepSpeed's handler: the tasks of texts, with the model prepared by DeepSpeed.

`DeepSpeedService` is also what users' model.py files wrap or subclass. Answers have the forms that
clients of this handler know: one dialogue and one question are answered with an object, other
tasks with a list.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from lmi.core import BuildError, ConfigError
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock import deepspeed_model, options
from lmi.custom.stock.deepspeed_options import DeepSpeedOptions
from lmi.custom.stock.deepspeed_ranks import Ranks
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.huggingface import Asked, HuggingFaceService
from lmi.custom.stock.loaded import Loaded

log = logging.getLogger(__name__)

_ALONE: Final = ("conversational", "question-answering")
"""Tasks whose answer to one input is no list."""


class DeepSpeedService(HuggingFaceService):
    """One model. With a rolling batch it is an engine in this process, as in its parent."""

    def __init__(self) -> None:
        super().__init__()
        self.ds_config = DeepSpeedOptions()
        self._degree = 1
        self._ranks: Ranks | None = None

    def initialize(self, properties: Mapping[str, Any]) -> None:
        """Load the model, on every rank. Raises ConfigError or ModelError."""
        if options.text(properties, "rolling_batch") not in (None, "disable"):
            super().initialize(properties)
            return
        self.ds_config = DeepSpeedOptions.read(properties)
        self._degree = _degree(self.ds_config)
        if self._degree > 1:
            self._ranks = Ranks(properties, self._degree)
            self._ranks.join()
        super().initialize(properties)
        if self._ranks is not None:
            self.hf_pipeline = self._ranks.mirror(self.hf_pipeline)

    def follow(self, properties: Mapping[str, Any], rank: int) -> None:
        """Load the model as a rank that `Ranks` started; its function is `hf_pipeline`."""
        self.ds_config = DeepSpeedOptions.read(properties)
        self._degree = _degree(self.ds_config)
        device = options.whole(properties, "device_id", -1)
        super().initialize({**properties, "device_id": str(rank if device >= 0 else device)})

    def _load(self, task: str, settings: HuggingFaceOptions) -> Loaded:
        dtype = self.ds_config.dtype or deepspeed_model.default_dtype()
        settings = replace(settings, dtype=dtype)
        return deepspeed_model.load(task, settings, dtype, self.ds_config, self._degree)

    def _stream(self, asked: Asked) -> Output:
        if self._ranks is not None:
            raise ValueError(
                "stream: the ranks of this model answer as a whole; "
                "option.rolling_batch=deepspeed streams"
            )
        return super()._stream(asked)

    def _shaped(self, results: list[Any], single: bool) -> Any:
        if len(results) == 1 and (
            self.task in _ALONE or (self.task == "fill-mask" and isinstance(results[0], list))
        ):
            return results[0]
        return results


def _degree(told: DeepSpeedOptions) -> int:
    """How many ranks share the model. Raises ConfigError for more than there are GPUs, if any."""
    gpus = deepspeed_model.gpus()
    if told.degree == "max":
        return max(gpus, 1)
    if 0 < gpus < told.degree:
        want = f"there are {gpus} GPUs for it"
        name = "option.tensor_parallel_degree"
        raise ConfigError(name, str(told.degree), options.SOURCE, want)
    return told.degree


def partition(inputs: Input) -> None:
    """Refuses: raises BuildError."""
    raise BuildError("checkpoints sharded by DeepSpeed are not made: models load unsharded")


_service = DeepSpeedService()


def handle(inputs: Input) -> Output | list[Output] | None:
    """Load the model at the first call, and answer requests."""
    return _service.handle(inputs)
