"""The seam for a library that rebuilds a transformers model before its attention is paged.

LMI-Dist reads the weights, the library puts its own layers in, LMI-Dist pages the attention of what
came out and plans, samples and streams as ever. The library may divide the model among the ranks of
the job: then every rank reads all of it, and transformers' own plans take no part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from lmi.dist.config import DistConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lmi.dist.quantized.divided import Divider

Details = tuple[tuple[str, str], ...]


class Library(Protocol):
    """One that rebuilds models.

    engine: its name, as `EngineInfo.engine` has it. divider: makes its quantised layers, None where
    they are whole on this rank.
    """

    engine: str
    divider: Divider | None

    def check(self, config: DistConfig, model_config: Any) -> None:
        """Raise ConfigError or ModelError for a model that it can't run, before weights are read.

        model_config: of transformers.
        """

    def rebuild(
        self, model: PreTrainedModel, progress: Callable[[str, int, int], None]
    ) -> tuple[PreTrainedModel, Details]:
        """The model to run, of the one given on its device, and what to say of it at the start.

        All ranks call it together. Raises ConfigError, ModelError or EngineDead.
        """
