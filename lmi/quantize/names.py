"""What a model's parameters are called in its checkpoint: transformers renames some as it loads."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def names_in_checkpoint(model: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """Of each of the model's parameters that is stored, the name in the file.

    model: transformers' own. Tensors that are put together from several are left out.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    wanted = dict(model.named_parameters(remove_duplicate=False))
    renamings = [
        change
        for change in get_model_conversion_mapping(model)
        if isinstance(change, WeightRenaming)
    ]
    found = {}
    for name in stored:
        here, _ = rename_source_key(name, renamings, [], model.base_model_prefix, wanted)
        if here in wanted:
            found[here] = name
    return found
