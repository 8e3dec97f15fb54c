"""What can't run as it is configured, found before any download or device."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lmi.config import ModelSpec, Resolution
from lmi.core import ConfigError
from lmi.dist.config import DistConfig
from lmi.dist.parallel.degrees import wanted

DEGREE: Final = "option.tensor_parallel_degree"


def preflight(resolution: Resolution) -> None:
    """Raise ConfigError for a configuration that is right, and that can't run here.

    A model whose files are not here yet is looked at when it is loaded.
    """
    spec = resolution.spec
    asked = spec.tensor_parallel_degree
    if not isinstance(asked, int) or asked == 1:
        return
    if spec.engine == "lmi-dist":
        want = _divided(spec, asked)
    else:
        want = f"{spec.engine} runs on one device in this release; expected 1"
    if want is not None:
        origin = next((s.origin for s in resolution.settings if s.key == DEGREE), "default")
        raise ConfigError(DEGREE, str(asked), origin, want)


def _divided(spec: ModelSpec, degree: int) -> str | None:
    """Why LMI-Dist can't divide the model so, as far as that can be known now."""
    folder = Path(spec.model)
    if not (folder / "config.json").is_file():
        return None
    return wanted(DistConfig(folder, tensor_parallel=degree))
