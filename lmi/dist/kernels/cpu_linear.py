"""Linear layers over `lmi.dist.native`: dense, weight-only quantised, and 8-bit by 8-bit."""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any, Final

import torch

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.native.library import GroupedStruct, Int8Struct, LinearStruct

# `Format` of simd.h.
FORMATS: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

# Results in memory at once: the newest may be computed from the one before it, and the protocol
# promises the one before that.
_RING: Final = 3
_KEPT_VIEWS: Final = 4096

# Inputs of a run at most: `kBlock` of product.h.
_RUN: Final = 256

# So many products of 8-bit numbers fit a 32-bit sum.
_INT8_INPUTS: Final = (1 << 31) // (127 * 128) - 1


class Outputs:
    """Memory for an operation's results, used in turn. It grows to the largest result."""

    __slots__ = ("_buffers", "_turn", "_views")

    def __init__(self) -> None:
        self._buffers = [torch.empty(0) for _ in range(_RING)]
        self._views: list[dict[tuple[int, int], tuple[torch.Tensor, int]]] = [
            {} for _ in range(_RING)
        ]
        self._turn = 0

    def take(self, rows: int, width: int) -> tuple[torch.Tensor, int]:
        """(rows, width) float32, not cleared, and its address."""
        turn = self._turn = (self._turn + 1) % _RING
        views = self._views[turn]
        found = views.get((rows, width))
        if found is None:
            found = self._make(turn, rows, width)
            if len(views) >= _KEPT_VIEWS:
                views.clear()
            views[rows, width] = found
        return found

    def _make(self, turn: int, rows: int, width: int) -> tuple[torch.Tensor, int]:
        numbers = rows * width
        if self._buffers[turn].numel() < numbers:
            self._views[turn].clear()
            # Not an inference tensor: whoever gets a result may use it anywhere.
            with torch.inference_mode(False):
                self._buffers[turn] = torch.empty(numbers)
        view = self._buffers[turn][:numbers].view(rows, width)
        return view, view.data_ptr()


class Packed:
    """What the layers share: the C structure, what it points at, and where results go."""

    __slots__ = ("_call", "_kept", "_outputs", "_struct", "in_features", "nbytes", "out_features")

    def __init__(
        self,
        call: Any,
        struct: ctypes.Structure,
        kept: tuple[torch.Tensor | None, ...],
        outputs: Outputs,
    ) -> None:
        self.in_features, self.out_features = struct.inputs, struct.outputs
        self.nbytes = sum(tensor.nbytes for tensor in kept if tensor is not None)
        self._call = call
        self._struct = byref(struct)
        self._kept = (struct, kept)
        self._outputs = outputs

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in_features) -> (rows, out_features) float32."""
        count = len(rows)
        out, address = self._outputs.take(count, self.out_features)
        self._call(self._struct, rows.data_ptr(), address, count)
        return out


def dense(
    library: Any, weight: torch.Tensor, bias: torch.Tensor | None, outputs: Outputs
) -> Packed:
    """A weight packed into panels, in the format it came in: float32, bfloat16 or float16."""
    if weight.dtype not in FORMATS:
        raise ValueError(f"a weight of {weight.dtype}: expected one of {list(FORMATS)}")
    form, size = FORMATS[weight.dtype], tuple(weight.shape)
    packed = torch.empty(library.lmi_packed_numbers(form, *size), dtype=weight.dtype)
    weight = weight.contiguous()  # by a name: its memory must outlive the call
    library.lmi_pack(form, weight.data_ptr(), *size, packed.data_ptr())
    bias = floats(bias)
    struct = LinearStruct(
        format=form,
        inputs=size[1],
        outputs=size[0],
        weights=packed.data_ptr(),
        bias=address_of(bias),
    )
    return Packed(library.lmi_linear, struct, (packed, bias), outputs)


def low_bit(
    library: Any, weight: LowBitWeight, bias: torch.Tensor | None, outputs: Outputs
) -> Packed:
    """The product of whole numbers where rows and weights have 8 bits and one scale each; else
    whole sums over two digits of the rows (digits.h), group by group."""
    if (
        weight.activation_bits == 8
        and weight.values.dtype == torch.int8
        and weight.zeros is None
        and weight.scales.shape[1] == 1
        and weight.in_features <= _INT8_INPUTS
    ):
        return _int8(library, weight, bias, outputs)
    return _grouped(library, weight, bias, outputs)


def _int8(
    library: Any, weight: LowBitWeight, bias: torch.Tensor | None, outputs: Outputs
) -> Packed:
    count, inputs = weight.out_features, weight.in_features
    panel = library.lmi_panel()
    packed = torch.empty(-(-count // panel) * panel * -(-inputs // 2) * 2, dtype=torch.int8)
    values = weight.values.contiguous()
    library.lmi_pack_int8(values.data_ptr(), count, inputs, packed.data_ptr())
    scales, bias = weight.scales.reshape(-1).to(torch.float32, copy=True), floats(bias)
    struct = Int8Struct(
        inputs=inputs,
        outputs=count,
        weights=packed.data_ptr(),
        bias=address_of(bias),
        scales=scales.data_ptr(),
    )
    return Packed(library.lmi_int8_linear, struct, (packed, bias, scales), outputs)


def _grouped(
    library: Any, weight: LowBitWeight, bias: torch.Tensor | None, outputs: Outputs
) -> Packed:
    count, inputs = weight.out_features, weight.in_features
    values, middle = weight.values, 0 if weight.bits == 8 else 1 << (weight.bits - 1)
    zeros = weight.zeros
    if values.dtype == torch.int8:  # from 0 upwards, and the zero with it
        values = values.view(torch.uint8) ^ 0x80
        middle += 128
        zeros = None if zeros is None else zeros + 128
    groups, order = weight.groups(), None
    if bool((groups.diff() < 0).any()):
        order = torch.argsort(groups, stable=True)
        values, groups = values[:, order], groups[order]
        order = order.to(torch.int32)
    runs = _runs(groups)
    _, _, last, before = runs[-1].tolist()
    words = library.lmi_low_bit_words(weight.bits, count, before + (last + 1) // 2)
    values = values.contiguous()
    packed = torch.empty(words, dtype=torch.int32)
    library.lmi_pack_low_bit(
        weight.bits,
        values.data_ptr(),
        count,
        inputs,
        runs.data_ptr(),
        len(runs),
        packed.data_ptr(),
    )
    bias = floats(bias)
    scales = _narrowest(panelled(weight.scales, library.lmi_panel()))
    if zeros is not None:
        zeros = panelled(zeros, library.lmi_panel())
        whole = zeros.clamp(0, 255).to(torch.uint8)
        if torch.equal(whole.to(torch.float32), zeros):
            zeros = whole
    struct = GroupedStruct(
        bits=weight.bits,
        scale_format=FORMATS[scales.dtype],
        zero_format=0 if zeros is None else 1 if zeros.dtype == torch.uint8 else 2,
        zero=middle,
        rounds_rows=weight.activation_bits is not None,
        inputs=inputs,
        outputs=count,
        words=packed.data_ptr(),
        bias=address_of(bias),
        runs=runs.data_ptr(),
        run_count=len(runs),
        groups=weight.scales.shape[1],
        scales=scales.data_ptr(),
        zeros=address_of(zeros),
        order=address_of(order),
    )
    kept = (packed, bias, runs, scales, zeros, order)
    return Packed(library.lmi_low_bit_linear, struct, kept, outputs)


def _runs(groups: torch.Tensor) -> torch.Tensor:
    """(runs, 4) int32, each a `Run` of digits.h: inputs side by side with one group.

    groups: (in), rising.
    """
    numbers, lengths = groups.unique_consecutive(return_counts=True)
    runs, first, pair = [], 0, 0
    for group, length in zip(numbers.tolist(), lengths.tolist(), strict=True):
        for start in range(0, length, _RUN):
            inputs = min(_RUN, length - start)
            runs.append((group, first + start, inputs, pair))
            pair += (inputs + 1) // 2
        first += length
    return torch.tensor(runs, dtype=torch.int32)


def panelled(numbers: torch.Tensor, panel: int) -> torch.Tensor:
    """(out, groups) -> (panels, groups, panel), with zeros for the outputs that do not exist."""
    count, groups = numbers.shape
    panels = -(-count // panel)
    padded = torch.zeros((panels * panel, groups))
    padded[:count] = numbers
    return padded.view(panels, panel, groups).transpose(1, 2).contiguous()


def _narrowest(numbers: torch.Tensor) -> torch.Tensor:
    """In 16 bits where that holds every number exactly, as it does what a checkpoint rounded."""
    for dtype in (torch.float16, torch.bfloat16):
        narrow = numbers.to(dtype)
        if torch.equal(narrow.to(torch.float32), numbers):
            return narrow
    return numbers


def floats(bias: torch.Tensor | None) -> torch.Tensor | None:
    """A bias of our own in float32."""
    return None if bias is None else bias.to(torch.float32, copy=True)


def address_of(tensor: torch.Tensor | None) -> int | None:
    """For a pointer that may be null."""
    return None if tensor is None else tensor.data_ptr()
