"""A transformers model of which one decoder layer at a time is in memory.

What stands around the layers (embedding, last norm, head) is loaded; the layers' parameters stay on
the device "meta" until one is asked for. A pass through the model runs its own `forward` with each
layer's replaced, which tells what a layer is called with (masks, rotary tables), and lets the part
before the layers and the part behind them run alone. No family is named here: what holds for none
of a model's layers is found out by trying it, and refused.

Everything is float32, in transformers' "eager" attention: the meaning, not the fastest form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils import _pytree as pytree  # torch's only way through nested arguments

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.quantize.names import names_in_checkpoint

WANTED: Final = (
    "expected decoder layers of torch.nn.Linear, such as those of Llama, Mistral, Qwen2, Qwen3, "
    "Gemma, OPT and GPT-NeoX"
)


class _Reached(Exception):
    """Ends a forward pass that has shown what it was run for."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a layer is called with beside the hidden states."""

    positional: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One decoder layer with its weights in memory.

    name: in the model, such as `model.layers.3`. dtypes: in which the checkpoint has its tensors,
    by their names within the layer.
    """

    name: str
    module: nn.Module
    dtypes: Mapping[str, torch.dtype]
    _arguments: Callable[[int], Arguments]

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """(1, tokens, hidden size) -> the same shape, in float32 on the layer's device."""
        at = self._arguments(hidden.shape[1])
        with torch.no_grad():
            return _hidden_of(self.module(hidden, *at.positional, **at.named))

    def linears(self) -> dict[str, nn.Linear]:
        """The linear layers by their names within this one."""
        return {
            name: module
            for name, module in self.module.named_modules()
            if isinstance(module, nn.Linear)
        }

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take these weights, by their names within the layer. They are used as they are."""
        self.module.load_state_dict(dict(tensors), strict=False, assign=True)


class Skeleton:
    """A model by layers. Not for threads: passes replace the layers' forward."""

    def __init__(self, model: nn.Module, checkpoint: Checkpoint, device: torch.device) -> None:
        """Use `open_skeleton`. Raises ModelError for a model that has no such layers."""
        self._model = model
        self._checkpoint = checkpoint
        self._device = device
        self._stored = names_in_checkpoint(model, checkpoint.names())
        self.prefix, self._layers = _decoder_layers(model)
        self._arguments: dict[int, list[Arguments]] = {}
        self._returns_tuple = False
        inside = tuple(f"{self.prefix}.{index}." for index in range(len(self._layers)))
        self._fill_around(inside)
        self._look_at_first_layer()

    @property
    def layers(self) -> int:
        """How many decoder layers there are."""
        return len(self._layers)

    def name(self, index: int) -> str:
        """A layer's name in the model."""
        return f"{self.prefix}.{index}"

    def stored(self, parameter: str) -> str:
        """A parameter's name in the checkpoint. Raises ModelError where it has none."""
        if parameter not in self._stored:
            where = self._checkpoint.where(parameter)
            raise ModelError(f"{where}: the checkpoint lacks the tensor {parameter}")
        return self._stored[parameter]

    def linears_around(self) -> list[str]:
        """The linear layers that belong to no decoder layer, by their names in the model and in the
        checkpoint."""
        names = [
            name
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear) and not name.startswith(f"{self.prefix}.")
        ]
        stored = [self._stored.get(f"{name}.weight", f"{name}.weight") for name in names]
        return [*names, *(name.removesuffix(".weight") for name in stored)]

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """What the first layer gets for these ids: (1, tokens, hidden size)."""
        caught: list[torch.Tensor] = []
        seen: list[Arguments] = []

        def pass_on(index: int, hidden: torch.Tensor, arguments: Arguments) -> Any:
            caught.append(hidden)
            seen.append(arguments)
            if index + 1 == self.layers:
                raise _Reached
            return (hidden,) if self._returns_tuple else hidden

        self._forward(torch.tensor([list(ids)]), pass_on)
        known = self._arguments.setdefault(len(ids), seen)
        if not all(map(_same, known, seen)):
            raise ModelError(
                f"{type(self._model).__name__}: its layers are told of the text by more than the "
                f"hidden states; {WANTED}"
            )
        return caught[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the model makes of the last layer's result: (tokens, vocabulary)."""

        def end_with(index: int, start: torch.Tensor, arguments: Arguments) -> Any:
            found = hidden if index + 1 == self.layers else start
            return (found,) if self._returns_tuple else found

        # The ids do not matter: nothing of them passes the last layer.
        out = self._forward(torch.zeros((1, hidden.shape[1]), dtype=torch.long), end_with)
        logits: torch.Tensor = out.logits[0]
        return logits

    @contextmanager
    def layer(self, index: int) -> Iterator[DecoderLayer]:
        """A layer with the checkpoint's weights, dropped at the end. Raises ModelError."""
        module, name = self._layers[index], self.name(index)
        tensors, dtypes = {}, {}
        for key, _ in module.named_parameters():
            tensors[key], dtypes[key] = self._take(f"{name}.{key}")
        module.load_state_dict(tensors, strict=False, assign=True)
        for key, buffer in module.named_buffers():  # few and small; made with the model
            _set_buffer(module, key, buffer.to(self._device))
        try:
            yield DecoderLayer(name, module, dtypes, lambda tokens: self._arguments[tokens][index])
        finally:
            empty = {key: tensor.to("meta") for key, tensor in tensors.items()}
            module.load_state_dict(empty, strict=False, assign=True)

    def _take(self, parameter: str) -> tuple[torch.Tensor, torch.dtype]:
        """A parameter in float32, and the dtype that it had."""
        name = self.stored(parameter)
        tensor = self._checkpoint.take(name)
        if not tensor.is_floating_point():
            where = self._checkpoint.where(name)
            raise ModelError(f"{where}: {name} is {tensor.dtype}: expected plain weights")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{self._checkpoint.where(name)}: {name} holds a NaN or an infinity")
        return tensor.to(self._device, torch.float32), tensor.dtype

    def _fill_around(self, inside: tuple[str, ...]) -> None:
        """Load what belongs to no layer; a head that is tied is left out of the checkpoint."""
        found = {}
        for name, _ in self._model.named_parameters(remove_duplicate=False):
            if name.startswith(inside):
                self.stored(name)
            elif name in self._stored or not _is_tied(self._model, name):
                found[name], _ = self._take(name)
        self._model.load_state_dict(found, strict=False, assign=True)
        self._model.tie_weights()
        for name, buffer in self._model.named_buffers():
            if not name.startswith(inside):
                _set_buffer(self._model, name, buffer.to(self._device))

    def _look_at_first_layer(self) -> None:
        """Whether layers return a tensor or a tuple that begins with one."""

        def ask(index: int, hidden: torch.Tensor, arguments: Arguments) -> Any:
            self._arguments[hidden.shape[1]] = [arguments]
            raise _Reached

        self._forward(torch.tensor([[0, 0]]), ask)
        (arguments,) = self._arguments.pop(2)
        with self.layer(0) as layer, torch.no_grad():
            hidden = torch.zeros((1, 2, self._width()), device=self._device)
            out = layer.module(hidden, *arguments.positional, **arguments.named)
            self._returns_tuple = isinstance(out, tuple)

    def _width(self) -> int:
        width: int = self._model.config.get_text_config().hidden_size
        return width

    def _forward(
        self, ids: torch.Tensor, layer: Callable[[int, torch.Tensor, Arguments], Any]
    ) -> Any:
        """Run the model with `layer` in the place of each layer's forward."""

        def instead(index: int) -> Callable[..., Any]:
            def run(hidden_states: torch.Tensor, *positional: Any, **named: Any) -> Any:
                return layer(index, hidden_states, Arguments(positional, named))

            return run

        modules = list(self._layers)
        for index, module in enumerate(modules):
            module.forward = instead(index)
        try:
            with torch.no_grad():
                return self._model(input_ids=ids.to(self._device), use_cache=False)
        except _Reached:
            return None
        finally:
            for module in modules:
                del module.forward


def open_skeleton(
    folder: Path, checkpoint: Checkpoint, *, device: str, trust_remote_code: bool
) -> Skeleton:
    """The model of a folder, without its layers. Raises ModelError, naming what is not known."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        with _parameters_on_meta():
            model = transformers.AutoModelForCausalLM.from_config(
                config,
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=trust_remote_code,
            )
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        # What transformers raises for a folder that it can make no model of.
        raise ModelError(f"{folder}: transformers can't make this model: {error}") from error
    return Skeleton(model.eval(), checkpoint, torch.device(device))


def _decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers and its name. Raises ModelError."""
    family = type(model).__name__
    count = model.config.get_text_config().num_hidden_layers
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if len(lists) != 1:
        raise ModelError(f"{family}: {len(lists)} lists of {count} layers; {WANTED}")
    name, layers = lists[0]
    for layer in layers:
        if not any(isinstance(module, nn.Linear) for module in layer.modules()):
            raise ModelError(f"{family}: {type(layer).__name__} has no torch.nn.Linear; {WANTED}")
        for key, parameter in layer.named_parameters():
            if parameter.dim() > 2:
                raise ModelError(
                    f"{family}: {name}.0.{key} holds several matrices in one tensor (experts); "
                    f"{WANTED}"
                )
    return name, layers


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Modules made meanwhile get their parameters on "meta", and their buffers for real.

    torch's own `torch.device("meta")` would take the buffers too, and what a rotary table holds
    stands in no checkpoint.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _is_tied(model: nn.Module, name: str) -> bool:
    """Whether a parameter is another one's under a second name, and so may stand in no file."""
    return name in (getattr(model, "all_tied_weights_keys", None) or {})


def _set_buffer(root: nn.Module, name: str, tensor: torch.Tensor) -> None:
    parent, _, last = name.rpartition(".")
    root.get_submodule(parent)._buffers[last] = tensor


def _hidden_of(out: Any) -> torch.Tensor:
    found: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return found


def _same(one: Arguments, other: Arguments) -> bool:
    """Whether two passes called a layer alike."""
    first, second = (pytree.tree_leaves((a.positional, a.named)) for a in (one, other))
    return len(first) == len(second) and all(map(_equal, first, second))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return type(one) is type(other)
