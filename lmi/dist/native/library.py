"""Find and load the C++ library that was built with the package.

`setup.py` builds one file per instruction set; the one for the most that this processor can is
loaded, once per process. Nothing is ever compiled here. Without a file `load_library` raises
`LibraryMissing`, and callers compute with torch.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from ctypes import CDLL, POINTER, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parent

# Of lmi_abi() in pool.cpp: a file built from other sources than these declarations is refused.
_ABI: Final = 3


class Target(NamedTuple):
    """An instruction set as compilers name it, and the flags of /proc/cpuinfo that it needs."""

    name: str
    flags: frozenset[str]


_V3: Final = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_V4: Final = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

# The most capable first; the same names as in setup.py.
TARGETS: Final = {
    "x86_64": (
        Target("x86-64-v4", _V4),
        Target("x86-64-v3", _V3),
        Target("x86-64", frozenset()),
    ),
    "aarch64": (Target("armv8-a", frozenset()),),
}


class LibraryMissing(Exception):
    """There is no library for this processor; the text says why, and what would help."""


class LinearStruct(ctypes.Structure):
    """`Linear` of linear.h."""

    __slots__ = ()  # so that a field that does not exist is refused
    _fields_ = (
        ("format", c_int32),
        ("reserved", c_int32),
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("weights", c_void_p),
        ("bias", c_void_p),
    )


class GroupedStruct(ctypes.Structure):
    """`GroupedLinear` of low_bit.cpp."""

    __slots__ = ()
    _fields_ = (
        ("bits", c_int32),
        ("scale_format", c_int32),
        ("zero_format", c_int32),
        ("zero", c_int32),
        ("rounds_rows", c_int32),
        ("reserved", c_int32),
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("words", c_void_p),
        ("bias", c_void_p),
        ("runs", c_void_p),
        ("run_count", c_int64),
        ("groups", c_int64),
        ("scales", c_void_p),
        ("zeros", c_void_p),
        ("order", c_void_p),
    )


class Int8Struct(ctypes.Structure):
    """`Int8Linear` of int8.cpp."""

    __slots__ = ()
    _fields_ = (
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("scales", c_void_p),
    )


class Float8Struct(ctypes.Structure):
    """`Float8Linear` of float8.cpp."""

    __slots__ = ()
    _fields_ = (
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("codes", c_void_p),
        ("bias", c_void_p),
        ("group_of", c_void_p),
        ("ends", c_void_p),
        ("groups", c_int64),
        ("scales", c_void_p),
    )


class AttentionStruct(ctypes.Structure):
    """`Attention` of attention.h."""

    __slots__ = ()
    _fields_ = (
        ("format", c_int32),
        ("scaling", c_float),
        ("query_heads", c_int64),
        ("kv_heads", c_int64),
        ("size", c_int64),
        ("rotary", c_int64),
        ("block_size", c_int64),
        ("window", c_int64),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("key_factor", c_float),
        ("value_factor", c_float),
        ("value_scale", c_float),
        ("reserved", c_int32),
    )


_P: Final = c_void_p
# Return type and arguments of every function of ours.
_FUNCTIONS: Final = {
    "lmi_target": (c_char_p, ()),
    "lmi_threads": (c_int, ()),
    "lmi_set_threads": (c_int, (c_int, POINTER(c_int))),
    "lmi_packed_numbers": (c_int64, (c_int32, c_int64, c_int64)),
    "lmi_pack": (None, (c_int32, _P, c_int64, c_int64, _P)),
    "lmi_linear": (None, (_P, _P, _P, c_int64)),
    "lmi_panel": (c_int64, ()),
    "lmi_low_bit_words": (c_int64, (c_int32, c_int64, c_int64)),
    "lmi_pack_low_bit": (None, (c_int32, _P, c_int64, c_int64, _P, c_int64, _P)),
    "lmi_low_bit_linear": (None, (_P, _P, _P, c_int64)),
    "lmi_pack_int8": (None, (_P, c_int64, c_int64, _P)),
    "lmi_int8_linear": (None, (_P, _P, _P, c_int64)),
    "lmi_pack_float8": (c_int64, (_P, c_int64, c_int64, _P)),
    "lmi_float8_linear": (None, (_P, _P, _P, c_int64)),
    "lmi_embed": (None, (c_int32, _P, _P, _P, c_int64, c_int64)),
    "lmi_rms_norm": (None, (_P, _P, _P, c_int64, c_int64, c_float)),
    "lmi_add_rms_norm": (None, (_P, _P, _P, _P, c_int64, c_int64, c_float)),
    "lmi_silu_mul": (None, (_P, _P, c_int64, c_int64)),
    "lmi_rotate_and_write": (None, (_P, _P, _P, _P, _P, _P, _P, c_float, _P, c_int64)),
    "lmi_attention": (None, (_P, _P, _P, _P, c_int64, _P, c_int64)),
    "lmi_argmax": (None, (_P, _P, c_int64, c_int64)),
    "lmi_draw": (None, (_P, _P, _P, _P, c_int64, c_int64)),
}


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor says it can; empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):  # of x86, of ARM
            return frozenset(value.split())
    return frozenset()


def library_file(machine: str, flags: frozenset[str], folder: Path = FOLDER) -> Path:
    """The best built file that a processor with these flags can run. Raises LibraryMissing."""
    targets = TARGETS.get(machine)
    if targets is None:
        raise LibraryMissing(f"there are no C++ kernels for {machine} processors")
    for target in targets:
        path = folder / f"lmi_{target.name}.so"
        if target.flags <= flags and path.exists():
            return path
    raise LibraryMissing(
        f"the C++ library is not built: {folder} holds no lmi_*.so for this processor; "
        "install a C++ compiler (g++ or clang++) and install the package again"
    )


@functools.cache
def load_library() -> CDLL:
    """The library of this process, with its functions' types set. Raises LibraryMissing."""
    path = library_file(platform.machine(), processor_flags())
    try:
        library = CDLL(str(path))
    except OSError as error:
        raise LibraryMissing(f"{path} can't be loaded: {error}") from error
    built = library.lmi_abi() if hasattr(library, "lmi_abi") else None
    if built != _ABI:
        raise LibraryMissing(
            f"{path} was built from other sources (interface {built}, expected {_ABI}): "
            "install the package again"
        )
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    target = library.lmi_target().decode()
    if path.stem != f"lmi_{target}":
        raise LibraryMissing(f"{path} holds code for {target}: install the package again")
    return library


def library_target() -> str:
    """The instruction set of the loaded library, such as x86-64-v3."""
    name: bytes = load_library().lmi_target()
    return name.decode()


def threads() -> int:
    """Threads that compute, with the caller."""
    count: int = load_library().lmi_threads()
    return count


def set_threads(count: int, cpus: Sequence[int] | None = None) -> None:
    """Compute with `count` threads (from 1), of which the caller is one.

    cpus: one processor per thread to stay on, the calling thread's first; threads that it starts
    later inherit its place. Call it from the thread that computes, and not while another one does.
    Workers do not survive a fork: a child starts with one thread. Raises ValueError, or OSError
    where the system refuses a processor.
    """
    if count < 1:
        raise ValueError(f"threads={count}: expected a whole number from 1")
    if cpus is not None and len(cpus) != count:
        raise ValueError(f"{len(cpus)} processors for {count} threads: expected one each")
    places = None if cpus is None else (c_int * count)(*cpus)
    error = load_library().lmi_set_threads(count, places)
    if error:
        raise OSError(error, f"can't place {count} threads on processors {list(cpus or ())}")
