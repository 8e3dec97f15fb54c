"""What a quantised checkpoint is made with. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from lmi.core import ConfigError

# Counts up when the same settings would give other numbers than before.
ALGORITHM: Final = 1


class Method(StrEnum):
    """How weights are rounded."""

    GPTQ = "gptq"
    AWQ = "awq"
    INT8 = "int8"
    FP8 = "fp8"


class ActOrder(StrEnum):
    """In which order GPTQ rounds columns.

    OFF: as they stand. STATIC: those with the largest inputs first, each in the group where it
    stands: the file is like one without. GROUP: likewise, and groups are made of columns that
    follow each other in that order: the file has an order of its own (`g_idx`), which costs speed.
    """

    OFF = "off"
    STATIC = "static"
    GROUP = "group"


BITS: Final = {
    Method.GPTQ: (3, 4, 8),
    Method.AWQ: (4,),
    Method.INT8: (8,),
    Method.FP8: (8,),
}
GROUP_SIZES: Final = (32, 64, 128, -1)


@dataclass(frozen=True, slots=True)
class Settings:
    """group_size: inputs of a layer that share a scale, -1 for all. symmetric: zero stands in the
    middle of the range. samples, length: calibration windows, and tokens in each."""

    method: Method
    bits: int
    group_size: int
    symmetric: bool
    act_order: ActOrder
    samples: int
    length: int

    def key(self, *content: str) -> str:
        """32 hexadecimal digits that differ where any setting or any of `content` differs."""
        told = json.dumps([ALGORITHM, asdict(self), content], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def settings_for(
    method: Method,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    symmetric: bool | None = None,
    act_order: ActOrder | None = None,
    samples: int = 32,
    length: int = 128,
) -> Settings:
    """Settings of a method, with its own defaults for what is None. Raises ConfigError, naming the
    flag, for what the method does not know."""
    source = "the command line"
    grouped = method in (Method.GPTQ, Method.AWQ)
    chosen = Settings(
        method=method,
        bits=(4 if 4 in BITS[method] else 8) if bits is None else bits,
        group_size=(128 if grouped else -1) if group_size is None else group_size,
        symmetric=(method is not Method.AWQ) if symmetric is None else symmetric,
        act_order=(ActOrder.STATIC if method is Method.GPTQ else ActOrder.OFF)
        if act_order is None
        else act_order,
        samples=samples,
        length=length,
    )
    if chosen.bits not in BITS[method]:
        want = f"expected {' or '.join(map(str, BITS[method]))} with --method {method}"
        raise ConfigError("--bits", str(bits), source, want)
    sizes = GROUP_SIZES if grouped else (-1,)
    if chosen.group_size not in sizes:
        want = f"expected {' or '.join(map(str, sizes))} with --method {method}"
        raise ConfigError("--group-size", str(group_size), source, want)
    if chosen.act_order is not ActOrder.OFF and method is not Method.GPTQ:
        want = "only --method gptq rounds columns in an order"
        raise ConfigError("--act-order", str(act_order), source, want)
    if not chosen.symmetric and not grouped:
        raise ConfigError("--asymmetric", None, source, f"--method {method} is symmetric")
    if samples < 1:
        raise ConfigError("--samples", str(samples), source, "expected a whole number from 1")
    if length < 2:
        raise ConfigError("--length", str(length), source, "expected a whole number from 2")
    return chosen
