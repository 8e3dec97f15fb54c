"""The core that runs a model, whichever model it is: paged where possible, else the fallback."""

from __future__ import annotations

import gc

from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.engine import Core, Progress, silent
from lmi.dist.unpageable import Unpageable


def make_core(config: DistConfig, progress: Progress = silent) -> Core:
    """Load a model on one rank. Raises ConfigError or ModelError; may take minutes.

    In the order of `DistConfig.runtime`: our own decoder, transformers' model over paged attention
    (`lmi.dist.runtimes`), and for what neither can run, padded batches (`lmi.dist.padded`).
    """
    why = "asked for by the configuration"
    if config.runtime != "generate":
        try:
            return EngineCore(config, progress)
        except Unpageable as error:
            if config.runtime != "auto":
                raise
            why = error.why.removeprefix(f"{config.model}: ")
    from lmi.dist.padded.core import PaddedCore

    gc.collect()  # a model that was loaded before it was found out must not stay beside the next
    return PaddedCore(config, progress, why=why)
