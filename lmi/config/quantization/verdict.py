"""What becomes of `option.quantize` and of a quantised checkpoint, by the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from lmi.config.quantization.checkpoint import Quantised
from lmi.config.quantization.hardware import Hardware
from lmi.config.quantization.methods import BY_NAME, COMPRESSED, NONE, VLLM, VLLM_BEFORE, nearest
from lmi.config.quantization.table import BY_KEY, ENGINES, ROWS, TITLES, Row, Way, works

# vLLM's names for what LMI calls otherwise.
_TO_VLLM: Final = {"bitsandbytes8": "bitsandbytes", "bitsandbytes4": "bitsandbytes"}
# Methods of libraries whose layers are whole, and what means the same and can be divided.
_DIVISIBLE: Final = {"bitsandbytes8": "int8", "torchao_int8": "int8"}
# On a CPU, vLLM's fp8 calls a kernel that only GPUs have; this one means the same and is there.
_VLLM_FP8_ON_CPU: Final = "fp8_per_channel"
_OURS: Final = ("lmi-dist", "deepspeed")  # whose readers are ours, so that all they read is known
_TABLE_SINCE: Final = (0, 32)  # the release of vLLM that the table describes


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of an engine. name: option.quantize as it is written, None where it is unset.

    checkpoint: how the model's files are quantised; None where they are not, or where they are not
    at hand, as `known` says. hardware: None where it is not known. release: vLLM's, None for any.
    ranks: of tensor parallelism.
    """

    name: str | None = None
    checkpoint: Quantised | None = None
    known: bool = False
    hardware: Hardware | None = None
    release: str | None = None
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """method: what the engine is told, None for nothing. note: for people, where it works.

    problem: why it does not work, ends a sentence; else None. of_checkpoint: the checkpoint is what
    is wrong, not the option. needs: modules that must be importable. why: the problem in short.
    """

    method: str | None = None
    note: str = ""
    problem: str | None = None
    of_checkpoint: bool = False
    needs: tuple[str, ...] = ()
    why: str = ""


def judge(engine: str, asked: Asked) -> Verdict:
    """What one of the table's engines makes of it."""
    if engine == "trtllm":
        return Verdict(asked.name)  # its library has its own names, and checks them itself
    if engine == "vllm" and _older(asked.release):
        return Verdict(_told(engine, asked.name))
    if asked.name is None or asked.name.lower() == NONE:
        return _of_checkpoint(engine, asked)
    name = asked.name.lower()
    if name not in BY_NAME:
        if engine == "vllm" and name in _names_of_vllm(asked.release):
            return Verdict(name)
        meant = nearest(name)
        hint = f"did you mean {meant}? " if meant else ""
        return Verdict(problem=f"no such method; {hint}{_instead(engine, asked.hardware)}")
    method = BY_NAME[name].name
    if engine == "vllm" and asked.release is None and _told(engine, name) in VLLM_BEFORE:
        return Verdict(_told(engine, name))  # some release has it
    if asked.checkpoint is not None:
        return _over(engine, asked, asked.checkpoint, method)
    if engine in _OURS and asked.ranks > 1 and method in _DIVISIBLE:
        own = _DIVISIBLE[method]
        verdict = judge(engine, replace(asked, name=own))
        return replace(verdict, note=f"done as {own}: layers of {method} can't be divided")
    rows = [row for row in ROWS if row.method == method]
    if asked.known:
        rows = [row for row in rows if row.way is Way.AT_LOAD]
        if not rows:
            return Verdict(
                problem="the model's config.json names no quantisation, and this is a method of "
                "checkpoints: serve one that is quantised, or make it with `lmi quantize`"
            )
    return _any_of(engine, asked, rows or list(ROWS))


def _of_checkpoint(engine: str, asked: Asked) -> Verdict:
    """No option: whether the engine reads the checkpoint, if it is quantised."""
    found = asked.checkpoint
    if found is None:
        return Verdict()
    verdict = _all_of(engine, asked, found)
    return replace(verdict, method=None, of_checkpoint=True)


def _over(engine: str, asked: Asked, found: Quantised, method: str) -> Verdict:
    """A method over a checkpoint that is quantised already: they must agree."""
    if method in (found.method, *(row.method for row in _rows(found))):
        return _all_of(engine, asked, found)
    if any(row.method == method and row.way is Way.CHECKPOINT for row in ROWS):
        return Verdict(
            problem=f"config.json says that the checkpoint is {found.title}: leave the option out, "
            f"or serve a checkpoint of {method}"
        )
    return Verdict(
        problem=f"the checkpoint is quantised already: {found.title}, says its config.json; leave "
        "the option out, or serve the unquantised model"
    )


def _all_of(engine: str, asked: Asked, found: Quantised) -> Verdict:
    """Every layer of a quantised checkpoint must be readable."""
    rows = _rows(found)
    for key in found.rows:
        if key in BY_KEY:
            why = BY_KEY[key].refused(engine, asked.hardware, asked.ranks)
        else:
            why = "it has no reader for that" if engine in _OURS else None
        if why is not None:
            return _refused(engine, asked, found.title, why, rows)
    if asked.name is None:
        told = None
    elif engine == "vllm" and found.method == COMPRESSED:
        told = COMPRESSED  # vLLM's name for the format, whatever is in it
    else:
        told = _told(engine, asked.name)
    return _works(engine, rows, told)


def _any_of(engine: str, asked: Asked, rows: Sequence[Row]) -> Verdict:
    """One of the ways in which a method can be had must work."""
    able = [row for row in rows if row.refused(engine, asked.hardware, asked.ranks) is None]
    if not able:
        why = rows[0].refused(engine, asked.hardware, asked.ranks) or ""
        return _refused(engine, asked, rows[0].title, why, rows)
    at_load = all(row.way is Way.AT_LOAD for row in rows)
    told = _told(engine, asked.name)
    on_cpu = asked.hardware is not None and asked.hardware.kind == "cpu"
    if engine == "vllm" and told == "fp8" and at_load and on_cpu:
        told = _VLLM_FP8_ON_CPU
    return _works(engine, able, told)


def _works(engine: str, rows: Sequence[Row], told: str | None) -> Verdict:
    cells = [row.columns[engine] for row in rows]
    note = "; ".join(dict.fromkeys(cell.note for cell in cells if cell.note))
    needs = tuple(dict.fromkeys(module for cell in cells for module in cell.needs))
    return Verdict(told, note, needs=needs)


def _told(engine: str, name: str | None) -> str | None:
    """What the engine is told: vLLM its own names, the others the method."""
    if name is None or name.lower() == NONE:
        return None
    lowered = name.lower()
    if engine == "vllm":
        return _TO_VLLM.get(lowered, lowered)
    return BY_NAME[lowered].name


def _rows(found: Quantised) -> list[Row]:
    return [BY_KEY[key] for key in found.rows if key in BY_KEY]


def _refused(engine: str, asked: Asked, title: str, why: str, rows: Sequence[Row]) -> Verdict:
    others = [
        TITLES[other]
        for other in ENGINES
        if other != engine
        and rows
        and all(row.refused(other, asked.hardware, asked.ranks) is None for row in rows)
    ]
    elsewhere = f"; {' and '.join(others)} can" if others else ""
    problem = f"{title}: {why}{elsewhere}; {_instead(engine, asked.hardware)}"
    return Verdict(problem=problem, why=f"{title}: {why}")


def _instead(engine: str, hardware: Hardware | None) -> str:
    where = "" if hardware is None else f" on {hardware}"
    return f"{TITLES[engine]} has{where} {works(engine, hardware)}"


def _older(release: str | None) -> bool:
    """Whether vLLM is of a release before the table's, which says itself what it has."""
    if release is None:
        return False
    major, minor = (int(part) for part in release.split(".")[:2])
    return (major, minor) < _TABLE_SINCE


def _names_of_vllm(release: str | None) -> frozenset[str]:
    return VLLM | VLLM_BEFORE if release is None else VLLM
