"""What makes a model's layers low-bit: its checkpoint's own format, or the configuration's wish."""

from __future__ import annotations

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.decoder.quantization import Quantization
from lmi.dist.quantized.at_load import at_load_reader
from lmi.dist.quantized.formats import Reader, reader_of
from lmi.dist.quantized.layer import quantised_layers


def choose_reader(config: DistConfig, quantization: Quantization | None) -> Reader | None:
    """What reads the layers; None where they are plain and stay so.

    quantization: what the checkpoint says of itself. Raises ModelError for a format that can't be
    read, ConfigError for a wish beside a checkpoint that is quantised already.
    """
    if quantization is None:
        return at_load_reader(config)
    if config.quantize != "none":
        raise config.error(
            "quantize",
            f"the checkpoint is quantised already ({quantization.method}, by "
            f"{quantization.where}); expected none",
        )
    return reader_of(quantization.values, quantization.where)


def check_label(checkpoint: Checkpoint, quantization: Quantization | None) -> list[str]:
    """The names of the checkpoint's quantised layers.

    Raises ModelError where what it says of itself is not what it holds.
    """
    found = quantised_layers(checkpoint)
    if found and quantization is None:
        raise ModelError(
            f"{checkpoint.where_layer(found[0])}: {found[0]} is quantised, and nothing says how; "
            "expected quantization_config in config.json"
        )
    if quantization is not None and not found:
        raise ModelError(
            f"{quantization.where} says that the checkpoint is quantised ({quantization.method}), "
            "and no layer in it is"
        )
    return found
