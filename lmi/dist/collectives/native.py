"""The C++ functions of `lmi/dist/native/ranks.cpp` and `allreduce.cpp`, as Python calls them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from typing import Final

import torch

from lmi.dist.native.library import LibraryMissing

# The same numbers as in native/simd.h.
FORMATS: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Outcome(IntEnum):
    """How an operation ended; the same numbers as in native/ranks.h."""

    DONE = 0
    TIMED_OUT = 1
    GONE = 2
    LEFT = 3
    ABORTED = 4
    MISMATCH = 5


def parse(outcome: int) -> tuple[Outcome, int]:
    """What the C++ functions return: how it ended, and the rank that is at fault."""
    return Outcome(outcome & 0xFF), outcome >> 8


class RanksLibrary:
    """The functions with their types. All calls release Python's lock: some of them wait.

    Raises LibraryMissing where the library was built without them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        if not hasattr(library, "lmi_ranks_attach"):
            raise LibraryMissing(
                "LMI-Dist's C++ library was built from other sources: install the package again"
            )

        def typed(name: str, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
            function = library[f"lmi_ranks_{name}"]  # a new object: nobody else sets its types
            function.restype = result
            function.argtypes = arguments
            return function

        handle = c_void_p
        self.bytes = typed("bytes", c_int64, c_int32, c_int64)
        self.attach = typed(
            "attach",
            c_int32,
            c_int32,
            c_char_p,
            c_int32,
            c_int32,
            c_int64,
            c_double,
            c_double,
            POINTER(handle),
        )
        self.detach = typed("detach", None, handle)
        self.meet = typed("meet", c_int32, handle, c_double)
        self.speak = typed("speak", c_int32, handle, c_char_p, c_int64)
        self.hear = typed("hear", c_int32, handle, c_void_p, c_int64, POINTER(c_int64))
        self.abort = typed("abort", None, handle, c_char_p)
        self.reason = typed("reason", c_char_p, handle)
        self.process = typed("process", c_int64, handle, c_int32)
        self.shut = typed("shut", None, handle)
        self.all_reduce = typed("all_reduce", c_int32, handle, c_void_p, c_int64, c_int32)
        self.add_rms_norm = typed(
            "add_rms_norm",
            c_int32,
            handle,
            c_void_p,
            c_void_p,
            c_void_p,
            c_void_p,
            c_int64,
            c_int64,
            c_float,
        )
        self.all_gather = typed("all_gather", c_int32, handle, c_void_p, c_void_p, c_int64, c_int64)
