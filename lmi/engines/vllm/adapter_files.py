"""Whether a folder holds a LoRA adapter that fits a model: from JSON and headers alone.

Asked before vLLM sees the adapter, and in our words: what vLLM finds wrong it finds while the
weights are on their way into a slot. Only safetensors are read; a pickle never is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from lmi.core import UnknownAdapter

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."  # that PEFT puts before the model's own names
_SIDES: Final = ("lora_A", "lora_B")

Shape = tuple[int, ...]


def check_adapter(name: str, folder: Path, base: Mapping[str, Shape], max_rank: int) -> None:
    """Raise UnknownAdapter unless vLLM can serve the adapter over the model.

    base: the shapes of the model's weights by name. A module that has no weight of its name there
    (of a quantised model, say) is left to vLLM.
    """
    if not folder.is_dir():
        raise _unfit(name, f"there is no folder {folder}")
    rank = _rank(name, _read(name, folder / CONFIG))
    if rank > max_rank:
        raise _unfit(name, f"its rank is {rank}: option.max_lora_rank allows {max_rank}")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise _unfit(name, f"{folder} has no {WEIGHTS}: only safetensors are loaded")
    for key, shape in _shapes(name, weights):
        module, _, rest = key.removeprefix(_PREFIX).partition(".lora_")
        side = f"lora_{rest.partition('.')[0]}"
        known = base.get(f"{module}.weight")
        if side not in _SIDES or known is None:
            continue
        outputs, inputs = known[0], known[1]
        place, size = (1, inputs) if side == "lora_A" else (0, outputs)
        if len(shape) != 2 or shape[place] != size or shape[1 - place] > max_rank:
            have = "x".join(map(str, shape))
            want = f"rank x {inputs}" if side == "lora_A" else f"{outputs} x rank"
            raise _unfit(name, f"{key} is {have}, but the model's {module} takes {want}")


def base_shapes(folder: Path) -> dict[str, Shape]:
    """The shapes of a model's two-dimensional weights by name, from its safetensors' headers."""
    found: dict[str, Shape] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {key: shape for key, shape in _shapes(path.name, path) if len(shape) == 2}
    return found


def _shapes(name: str, path: Path) -> Iterator[tuple[str, Shape]]:
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                yield key, tuple(file.get_slice(key).get_shape())
    except (OSError, SafetensorError) as error:
        raise _unfit(name, f"{path} can't be read: {error}") from error


def _read(name: str, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unfit(name, f"{path.parent} has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise _unfit(name, f"{path} can't be read: {error}") from error
    if not isinstance(found, dict) or found.get("peft_type", "LORA") != "LORA":
        raise _unfit(name, f"{path} describes no LoRA adapter")
    return found


def _rank(name: str, config: Mapping[str, Any]) -> int:
    """The largest rank of any module."""
    patterns = config.get("rank_pattern") or {}
    said = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])]
    ranks = [rank for rank in said if isinstance(rank, int) and rank > 0]
    if len(ranks) < len(said):
        raise _unfit(name, f"{CONFIG} has no rank: expected r, a whole number from 1")
    return max(ranks)


def _unfit(name: str, why: str) -> UnknownAdapter:
    return UnknownAdapter(f"adapter {name!r}: {why}", field="src")
