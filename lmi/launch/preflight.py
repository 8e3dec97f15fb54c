"""What the engines of this release can't do yet, found before any download or device."""

from __future__ import annotations

from lmi.config import Resolution
from lmi.core import ConfigError

DEGREE = "option.tensor_parallel_degree"


def preflight(resolution: Resolution) -> None:
    """Raise ConfigError for a configuration that is right, and that this release can't run."""
    asked = resolution.spec.tensor_parallel_degree
    if isinstance(asked, int) and asked > 1:
        origin = next((s.origin for s in resolution.settings if s.key == DEGREE), "default")
        engine = resolution.spec.engine
        want = f"{engine} runs on one device in this release; expected 1, or max, which is 1 here"
        raise ConfigError(DEGREE, str(asked), origin, want)
