"""Which runtime a model gets: our own decoder, or transformers' model over our paged attention.

The first is tried by reading config.json alone, so that a model of ours never waits for
transformers to be imported.
"""

from __future__ import annotations

from collections.abc import Callable

from lmi.core import ModelError
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.decoder.config import DecoderConfig, Surplus, Unfit, read_decoder_config
from lmi.dist.libraries import LIBRARIES
from lmi.dist.model import PagedModel

Progress = Callable[[str, int, int], None]


def load_model(
    config: DistConfig, progress: Progress, collective: Collective | None = None
) -> PagedModel:
    """Load the model for this rank. Raises ConfigError or ModelError; may take minutes."""
    why = "asked for by the configuration"
    if config.runtime in ("auto", "native"):
        found = _read(config)
        if not isinstance(found, Unfit):
            from lmi.dist.decoder.load import load_decoder

            try:
                return load_decoder(config, found, progress, collective)
            except Surplus as surplus:
                if config.runtime == "native":
                    raise
                found = Unfit(str(surplus))
        why = found.reason
        if config.runtime == "native":
            raise ModelError(f"{config.model}: LMI-Dist's own decoder can't run it: {why}")
    from lmi.dist.hosted import load_hosted

    return load_hosted(config, progress, collective, why)


def _read(config: DistConfig) -> DecoderConfig | Unfit:
    library = LIBRARIES.get(config.quantize)
    if library is not None:
        return Unfit(f"quantize={config.quantize} is {library}'s, whose layers are transformers'")
    return read_decoder_config(config.model)
