"""Quantised layers in transformers' models: our readers and kernels in place of its quantisers.

Transformers widens some formats at the first forward pass and wants a library for others. This is
its own extension point, a quantizer: layers are taken out of the model while it is a skeleton
without memory, transformers loads what is left, and each layer is then put in place quantised as
it is in the file. So no more than the model as it will serve, and one layer, is ever in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)
from transformers.quantizers import HfQuantizer, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.decoder.config import read_json
from lmi.dist.decoder.quantization import quantization_of
from lmi.dist.device import choose_device
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.choose import choose_kernels
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.libraries import library_arguments, prepare_library
from lmi.dist.quantized.at_load import AtLoadReader
from lmi.dist.quantized.cache_scales import CACHE_SCALES
from lmi.dist.quantized.choose import check_label, choose_reader
from lmi.dist.quantized.divided import Divider
from lmi.dist.quantized.formats import METHODS, Reader
from lmi.dist.quantized.layer import check_shape
from lmi.dist.quantized.modules import LowBitLinear, linear_sizes

_METHOD: Final = "lmi_low_bit"
_WEIGHT: Final = ".weight"


@contextmanager
def low_bit_arguments(
    config: DistConfig, model_config: Any, dtype: torch.dtype, divider: Divider | None
) -> Iterator[Mapping[str, Any]]:
    """While it is open, `from_pretrained` with these arguments reads a quantised checkpoint, or
    quantises a plain one as the configuration asks.

    Nothing for a plain checkpoint that stays so, nor for one whose format transformers is left to
    read. Takes the settings out of model_config. divider: makes this rank's part of each layer, if
    there are others. Raises ModelError or ConfigError.
    """
    quantization = quantization_of(config.model, read_json(config.model / "config.json"))
    foreign = quantization is not None and quantization.method not in METHODS
    if quantization is not None and foreign and config.quantize == "none":
        prepare_library(quantization.method, quantization.where, divided=divider is not None)
        yield {}
        return
    reader = choose_reader(config, quantization)
    with Checkpoint(config.model) as checkpoint:
        quantised = check_label(checkpoint, quantization)
        if reader is None:
            yield library_arguments(config, dtype, divided=divider is not None)
            return
        _forget_settings(model_config)
        kernels = choose_kernels(config, choose_device(config), dtype)
        layers: _Layers
        if isinstance(reader, AtLoadReader):
            layers = _PlainLayers(checkpoint, reader, kernels, dtype, divider)
        else:
            layers = _Layers(checkpoint, quantised, reader, kernels, dtype, divider)
        yield {"quantization_config": _LowBitConfig(layers)}


def low_bit_label(model: torch.nn.Module) -> str | None:
    """Of a model's quantised layers, for the start-up log: memory and kind; None without any."""
    found = [module for module in model.modules() if isinstance(module, LowBitLinear)]
    if not found:
        return None
    held = sum(module.nbytes for module in found)
    return f"{held / 2**20:.0f} MiB in {len(found)} layers, {model.hf_quantizer.label}"


def _forget_settings(model_config: Any) -> None:
    """Else transformers would look for a quantizer of its own."""
    for part in (model_config, model_config.get_text_config(decoder=True)):
        for key in ("quantization_config", "compression_config"):
            if hasattr(part, key):
                delattr(part, key)


class _TakenOut(torch.nn.Module):
    """Stands where a linear layer was. weight and bias are no parameters, so transformers neither
    loads nor makes them; but what initialises parents asks for them, and finds that it is done."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.weight = _initialised(module.weight)
        bias = getattr(module, "bias", None)
        self.bias = None if bias is None else _initialised(bias)


def _initialised(parameter: torch.Tensor) -> torch.Tensor:
    found = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    found._is_hf_initialized = True
    return found


class _Layers:
    """The quantised layers of one checkpoint, on their way into a model."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: list[str],
        reader: Reader,
        kernels: Kernels,
        dtype: torch.dtype,
        divider: Divider | None,
    ) -> None:
        self.label = f"{reader.label}, {kernels.name}"
        self._checkpoint = checkpoint
        self._names = names
        self._reader = reader
        self._kernels = kernels
        self._dtype = dtype
        self._divider = divider
        self._places: dict[str, str] = {}  # a layer's name in the file -> its module's
        self._sizes: dict[str, tuple[int, int]] = {}

    def take_out(self, model: PreTrainedModel) -> None:
        """Remember where each layer belongs, and leave nothing there that wants memory."""
        self._places = self._find(model)
        plan = model.tp_plan if self._divider is not None else {}
        for layer, place in self._places.items():
            module = model.get_submodule(place)
            sizes = linear_sizes(module)
            if sizes is None:
                raise ModelError(
                    f"{self._where(layer)}: {layer} is quantised, but {place} of "
                    f"{type(model).__name__} is no linear layer: {type(module).__name__}"
                )
            if self._divider is not None:
                self._divider.check(place, sizes, plan)
            self._sizes[layer] = sizes
            model.set_submodule(place, _TakenOut(module))
        known = {re.escape(f"{name}.") for pair in self._places.items() for name in pair}
        model._keys_to_ignore_on_load_unexpected = known.union(
            model._keys_to_ignore_on_load_unexpected or ()
        )

    def put_in(self, model: PreTrainedModel) -> None:
        """Read each layer, and put this rank's part of it in its place."""
        for layer, place in self._places.items():
            weight = self._read(layer)
            check_shape(self._checkpoint, layer, weight, self._sizes[layer])
            bias = self._bias(layer, needed=model.get_submodule(place).bias is not None)
            module: torch.nn.Module
            if self._divider is None:
                module = LowBitLinear(weight, bias, self._kernels, dtype=self._dtype)
            else:
                module = self._divider.part(place, weight, bias, self._kernels, self._dtype)
            model.set_submodule(place, module)
        left = [
            name for name in self._checkpoint.left_over(CACHE_SCALES) if self._is_of_a_layer(name)
        ]
        if left:
            raise ModelError(
                f"{self._checkpoint.where(left[0])}: {left[0]} is no tensor that a quantised layer "
                f"has: {self._reader.label}"
            )

    def _find(self, model: PreTrainedModel) -> dict[str, str]:
        """The module of each layer."""
        skeleton = _Skeleton(model)
        found = {}
        for layer in self._names:
            renamed, converted = skeleton.renamed(layer)
            if converted:
                raise ModelError(
                    f"{self._where(layer)}: {layer} is quantised, and transformers' "
                    f"{type(model).__name__} holds it together with others in one tensor, "
                    f"{renamed}; expected a checkpoint whose other layers alone are quantised"
                )
            if renamed not in skeleton.tensors:
                raise ModelError(
                    f"{self._where(layer)}: the quantised layer {layer} belongs to no layer of "
                    f"{type(model).__name__}"
                )
            found[layer] = renamed.removesuffix(_WEIGHT)
        return found

    def _read(self, layer: str) -> LowBitWeight:
        weight = self._reader.read(self._checkpoint, layer)
        if weight is None:
            raise ModelError(
                f"{self._where(layer)}: {layer} is not quantised as the checkpoint says: "
                f"{self._reader.label}"
            )
        return weight

    def _is_of_a_layer(self, name: str) -> bool:
        return name.rpartition(".")[0] in self._places

    def _where(self, layer: str) -> str:
        return self._checkpoint.where_layer(layer)

    def _bias(self, layer: str, *, needed: bool) -> torch.Tensor | None:
        name = f"{layer}.bias"
        if name not in self._checkpoint and not needed:
            return None
        return self._checkpoint.take(name, self._sizes[layer][:1])


class _PlainLayers(_Layers):
    """Every linear layer of a plain checkpoint but the output layer, quantised as it is read."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        reader: AtLoadReader,
        kernels: Kernels,
        dtype: torch.dtype,
        divider: Divider | None,
    ) -> None:
        names = [
            name.removesuffix(_WEIGHT) for name in checkpoint.names() if name.endswith(_WEIGHT)
        ]
        super().__init__(checkpoint, names, reader, kernels, dtype, divider)
        self._at_load = reader
        self._transposed: set[str] = set()

    def _find(self, model: PreTrainedModel) -> dict[str, str]:
        skeleton, head = _Skeleton(model), model.get_output_embeddings()
        found = {}
        for layer in self._names:
            renamed, converted = skeleton.renamed(layer)
            if converted or renamed not in skeleton.tensors:
                continue  # a tensor of many experts; or what transformers leaves out itself
            place = renamed.removesuffix(_WEIGHT)
            module = model.get_submodule(place)
            if module is head or linear_sizes(module) is None:
                continue
            found[layer] = place
            if not isinstance(module, torch.nn.Linear):
                self._transposed.add(layer)  # Conv1D
        if not found:
            raise ModelError(
                f"{type(model).__name__} has no linear layer that could be quantised at load"
            )
        return found

    def _read(self, layer: str) -> LowBitWeight:
        transposed = layer in self._transposed
        return self._at_load.read(self._checkpoint, layer, transposed=transposed)


class _Skeleton:
    """The tensors of a model without memory, and the renaming that transformers loads with."""

    def __init__(self, model: PreTrainedModel) -> None:
        transforms = get_model_conversion_mapping(model)
        self.tensors = model.state_dict()
        self._renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        self._converters = [one for one in transforms if isinstance(one, WeightConverter)]
        self._prefix = model.base_model_prefix

    def renamed(self, layer: str) -> tuple[str, bool]:
        """What a layer's weight is called in the model, and whether it is a part of that only."""
        name = f"{layer}{_WEIGHT}"
        renamed, converted = rename_source_key(
            name, self._renamings, self._converters, self._prefix, self.tensors
        )
        if renamed not in self.tensors and name in self.tensors:
            renamed, converted = rename_source_key(name, [], [], self._prefix, self.tensors)
        return renamed, converted is not None


class _LowBitConfig(QuantizationConfigMixin):
    """Carries the layers through `from_pretrained`."""

    def __init__(self, layers: _Layers) -> None:
        self.quant_method = _METHOD
        self.layers = layers

    def __deepcopy__(self, memo: dict[int, Any]) -> _LowBitConfig:
        return self  # the configuration around it is copied; an open checkpoint can't be

    def to_dict(self) -> dict[str, Any]:
        """What can be written down of it."""
        return {"quant_method": _METHOD}


@register_quantizer(_METHOD)
class LowBitQuantizer(HfQuantizer):
    """See the module's docstring. To transformers the layers are made now, not pre-quantised: it
    then casts the other tensors as it does for a plain model."""

    def __init__(self, quantization_config: _LowBitConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **{**kwargs, "pre_quantized": False})
        self.label = quantization_config.layers.label

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, **kwargs: Any
    ) -> PreTrainedModel:
        self.quantization_config.layers.take_out(model)
        return model

    def _process_model_after_weight_loading(
        self, model: PreTrainedModel, **kwargs: Any
    ) -> PreTrainedModel:
        self.quantization_config.layers.put_in(model)
        return model

    def is_serializable(self) -> bool:
        """No: what the kernels hold is packed for one processor."""
        return False

    @property
    def is_trainable(self) -> bool:
        """No."""
        return False
