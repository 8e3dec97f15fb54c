"""What is packed here is read by LMI-Dist's readers, and is what other libraries write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmi.dist.quantized import reader_of
from lmi.dist.quantized.layer import canonical
from lmi.quantize.pack import awq_tensors, gptq_tensors, pack_stream
from tests.support import low_bit_files as files

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_gptq_tensors_are_those_of_plain_loops(
    bits: int, symmetric: bool, ordered: bool, tmp_path: Path
) -> None:
    layer = files.numbers(bits, symmetric=symmetric, ordered=ordered, seed=bits)
    # A GPTQ file has no zero point of 0.
    layer = files.Numbers(bits, layer.q, layer.scales, layer.zeros.clamp(min=1), layer.group)
    group = None if ordered else layer.group
    low = canonical(bits, layer.q.to(torch.uint8), layer.scales, layer.zeros, group)
    tensors = gptq_tensors(low)
    for name, want in files.gptq(layer, version=1).items():
        assert torch.equal(tensors[name], want), name
    reader = reader_of(files.gptq_config(bits), "config.json")
    with files.checkpoint(tmp_path, tensors) as checkpoint:
        found = reader.read(checkpoint, files.NAME)
    assert found is not None
    assert torch.equal(found.dense(), layer.dense())


@pytest.mark.parametrize("symmetric", [True, False])
def test_awq_tensors_are_those_of_plain_loops(symmetric: bool) -> None:
    layer = files.numbers(4, symmetric=symmetric)
    low = canonical(4, layer.q.to(torch.uint8), layer.scales, layer.zeros, None)
    for name, want in files.awq(layer).items():
        assert torch.equal(awq_tensors(low)[name], want), name


def test_numbers_that_fill_no_whole_words_are_refused() -> None:
    with pytest.raises(ValueError, match="10 numbers of 3 bits"):
        pack_stream(torch.zeros((1, 10)), 3)
