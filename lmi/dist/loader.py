"""From a folder to a transformers model whose attention is paged; what can't run is named first."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from lmi.core import ModelError
from lmi.dist.adapters import ADAPTERS, OWN_ATTENTION, adapter_of
from lmi.dist.attention import ATTENTION_NAME, interface
from lmi.dist.classes import generating_class
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.device import choose_device, choose_dtype
from lmi.dist.library import Details, Library
from lmi.dist.linear import pack_linears, packing_works
from lmi.dist.probe import (
    LayerFacts,
    Probe,
    check_layers,
    probing_interface,
    set_layer,
)
from lmi.dist.quantized.divided import Divider, Division
from lmi.dist.quantized.hosted import low_bit_arguments, low_bit_label
from lmi.dist.unpageable import Unpageable

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, what is done and the total of it, in units of the phase."""

PROBE_NAME: Final = "lmi_probe"
PROBE_TOKENS: Final = 8  # of the warm-up sequence

# Model types that use the attention interface without declaring it.
_UNDECLARED: Final = frozenset({"stablelm"})


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model on its device, ready for paged layers.

    forward_arguments: what its forward wants beside ids and positions. keeps_logits: whether it
    takes `logits_to_keep`. layers: its attention layers in order. reference: the logits of its own
    attention for `probe_ids`, (tokens, vocabulary), for the check of ours. packed_linears: layers
    whose weight is packed for the processor. details: what a library says that rebuilt the model.
    low_bit: what is to be said of quantised layers, None without any.
    """

    model: PreTrainedModel
    text_config: Any
    dtype: torch.dtype
    device: torch.device
    eos_ids: frozenset[int]
    vocab_size: int
    forward_arguments: dict[str, Any]
    takes_positions: bool
    keeps_logits: bool
    layers: list[LayerFacts]
    probe_ids: list[int]
    reference: torch.Tensor
    packed_linears: int
    details: Details
    low_bit: str | None

    def logits(
        self, token_ids: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """token_ids and positions (1, tokens), rows (wanted,) -> (wanted, vocabulary)."""
        arguments = dict(self.forward_arguments)
        if self.takes_positions:
            arguments["position_ids"] = positions
        if self.keeps_logits:
            arguments["logits_to_keep"] = rows
        out: torch.Tensor = self.model(token_ids, **arguments).logits[0]
        return out if self.keeps_logits else out[rows]


def read_model_config(config: DistConfig) -> Any:
    """The model's config.json, checked for paged attention.

    Raises ModelError for what LMI-Dist can't run, Unpageable for what only its fallback can.
    """
    model_config = parse_model_config(config)
    _check_class(model_config, config)
    check_files(config.model)
    return model_config


def parse_model_config(config: DistConfig) -> Any:
    """The model's config.json. Raises ModelError."""
    folder = config.model
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json there; expected a Hugging Face model folder")
    try:
        model_config = AutoConfig.from_pretrained(
            folder, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"{folder}/config.json can't be read: {_one_line(error)}") from error
    return model_config


def _check_class(model_config: Any, config: DistConfig) -> None:
    kind = model_config.model_type
    auto = generating_class(model_config, config)
    if model_config.is_encoder_decoder:
        raise Unpageable(f"{config.model}: {kind} is an encoder-decoder model")
    if kind in ADAPTERS or kind in _UNDECLARED:
        return
    if getattr(model_config, "auto_map", None) and config.trust_remote_code:
        return  # its class is in the folder; the probe looks at it after loading
    cls = auto._model_mapping[type(model_config)]
    if getattr(cls, "_is_stateful", False):
        raise Unpageable(f"{config.model}: {kind} keeps a state that is not K and V")
    if not getattr(cls, "_supports_attention_backend", False):
        raise Unpageable(
            f"{config.model}: {kind} uses neither transformers' attention interface nor one of "
            f"LMI-Dist's adapters ({', '.join(sorted(ADAPTERS))})"
        )


def check_files(folder: Path) -> None:
    """Raise ModelError unless there is a safetensors file."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        raise ModelError(
            f"{folder}: {pickles[0]} is a pickle, which can run code when it is read; convert the "
            "checkpoint to safetensors (load it where you trust it, then save_pretrained)"
        )
    raise ModelError(f"{folder}: no *.safetensors file there")


def load(
    config: DistConfig,
    model_config: Any,
    progress: Progress,
    collective: Collective | None = None,
    library: Library | None = None,
) -> Loaded:
    """Read the weights, or this rank's share of them, and compute the model's own reference.

    library: rebuilds the model first; it gets all of the weights on every rank.
    """
    if library is not None:
        library.check(config, model_config)
    device = choose_device(config)
    text_config = model_config.get_text_config(decoder=True)
    dtype = choose_dtype(config, device, getattr(text_config, "dtype", None))
    total = sum(path.stat().st_size for path in config.model.glob("*.safetensors"))
    progress("load weights", 0, total)
    attention = OWN_ATTENTION.get(model_config.model_type, "eager")
    with _share(config, model_config, None if library else collective) as further:
        auto = AutoModelForCausalLM
        divider = _divider(collective, library)
        model = read_weights(config, model_config, dtype, auto, attention, divider, **further)
    model = model.to(device).eval().requires_grad_(False)
    progress("load weights", total, total)
    details: Details = ()
    if library is not None:
        model, details = library.rebuild(model, progress)
    low_bit = low_bit_label(model)

    vocab_size = vocabulary(model, text_config)
    probe_ids = [(7 * i + 3) % vocab_size for i in range(PROBE_TOKENS)]
    ids = torch.tensor([probe_ids], device=device)
    reference = model(ids, use_cache=False).logits[0].float()
    packs = device.type == "cpu" and collective is None and packing_works(dtype)
    packed = pack_linears(model) if packs else 0
    signature = inspect.signature(model.forward).parameters
    return Loaded(
        model=model,
        text_config=text_config,
        dtype=dtype,
        device=device,
        eos_ids=end_ids(config.model, model_config, text_config),
        vocab_size=vocab_size,
        forward_arguments={"use_cache": False},
        takes_positions="position_ids" in signature,
        keeps_logits="logits_to_keep" in signature,
        layers=[],
        probe_ids=probe_ids,
        reference=reference,
        packed_linears=packed,
        details=details,
        low_bit=low_bit,
    )


def _divider(collective: Collective | None, library: Library | None) -> Divider | None:
    if library is not None:
        return library.divider
    return None if collective is None else Division(collective)


def _share(
    config: DistConfig, model_config: Any, collective: Collective | None
) -> AbstractContextManager[dict[str, Any]]:
    if collective is None:
        return nullcontext({})
    from lmi.dist.parallel.hosted import divided

    return divided(config, model_config, collective)


def install_attention(loaded: Loaded, positions: int) -> None:
    """Switch the model to paged attention and fill in `layers`.

    positions: keys that a bias by position must cover. The layers still need their caches.
    """
    model, kind = loaded.model, loaded.model.config.model_type
    adapter = adapter_of(kind)
    if adapter is not None:
        loaded.forward_arguments.update(adapter(model, positions))
    else:
        AttentionInterface.register(PROBE_NAME, probing_interface)
        AttentionInterface.register(ATTENTION_NAME, interface)
        model.set_attn_implementation(PROBE_NAME)
    probe = Probe()
    set_layer(model.modules(), probe)
    ids = torch.tensor([loaded.probe_ids], device=loaded.device)
    places = torch.arange(len(loaded.probe_ids), device=loaded.device)
    loaded.logits(ids, places[None], places[-1:])
    check_layers(probe.layers, loaded.text_config, f"{loaded.model.config.model_type}")
    if adapter is None:
        model.set_attn_implementation(ATTENTION_NAME)
    loaded.layers.extend(probe.layers)


def read_weights(
    config: DistConfig,
    model_config: Any,
    dtype: torch.dtype,
    auto: Any,
    attention: str | None,
    divider: Divider | None = None,
    **further: Any,
) -> PreTrainedModel:
    """The model of auto class `auto`, on the host; quantised layers are where the kernels compute.

    attention: a name of transformers' attention interface, None for the model's default.
    divider: makes this rank's part of quantised layers. further: other arguments of
    `from_pretrained`. Raises ModelError, also for missing weights.
    """
    transformers_logging.disable_progress_bar()
    try:
        with low_bit_arguments(config, model_config, dtype, divider) as low_bit:
            model, report = auto.from_pretrained(
                config.model,
                config=model_config,
                dtype=dtype,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=config.trust_remote_code,
                output_loading_info=True,
                **low_bit,
                **further,
            )
    except (
        ImportError,  # the library of a quantisation method that is not installed
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise ModelError(
            f"{config.model}: the weights can't be read: {_one_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if missing:
        # transformers would fill them with random numbers and answer nonsense.
        raise ModelError(
            f"{config.model}: the checkpoint lacks {len(missing)} weights or has them in another "
            f"shape, among them {missing[0]}"
        )
    result: PreTrainedModel = model
    return result


def vocabulary(model: PreTrainedModel, text_config: Any) -> int:
    """Ids that both can be read and can be sampled."""
    embedding = model.get_input_embeddings()
    size = int(text_config.vocab_size)
    rows = getattr(embedding, "num_embeddings", size)
    return min(size, int(rows))


def end_ids(folder: Path, *configs: Any) -> frozenset[int]:
    """Every end token that config.json and generation_config.json name."""
    sources = list(configs)
    if (folder / "generation_config.json").is_file():
        try:
            sources.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
        except (OSError, ValueError, json.JSONDecodeError) as error:
            raise ModelError(
                f"{folder}/generation_config.json can't be read: {_one_line(error)}"
            ) from error
    found: set[int] = set()
    for source in sources:
        value = getattr(source, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
