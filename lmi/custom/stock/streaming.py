"""Streams of generated text, under the names that scripts know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from lmi.custom.stock import generation

_KNOWN: Final = ("Accelerate", "DeepSpeed", "transformers-neuronx")


class StreamingUtils:
    """Generators of texts, for `Output.add_stream_content`."""

    DEFAULT_MAX_NEW_TOKENS = 50

    @staticmethod
    def use_hf_default_streamer(
        model: Any, tokenizer: Any, inputs: Any, device: Any = None, **kwargs: Any
    ) -> Iterator[str]:
        """The texts that a model brings for one prompt (or a list of one), as they come.

        kwargs: parameters of `generate`. device: the model's own is used.
        """
        return generation.stream(model, tokenizer, inputs, **kwargs)

    @staticmethod
    def get_stream_generator(execution_engine: str) -> Callable[..., Iterator[list[str]]]:
        """A function (model, tokenizer, inputs, device, **kwargs) that yields lists of texts, one
        for each prompt. Raises ValueError for an engine that is unknown."""
        if execution_engine not in _KNOWN:
            raise ValueError(f"{execution_engine!r}: expected one of {', '.join(_KNOWN)}")
        return _lists


def _lists(
    model: Any, tokenizer: Any, inputs: Any, device: Any = None, **kwargs: Any
) -> Iterator[list[str]]:
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    streams: list[Iterator[str] | None] = [
        generation.stream(model, tokenizer, text, **kwargs) for text in texts
    ]
    while True:
        step = ["" for _ in texts]
        for place, each in enumerate(streams):
            if each is None:
                continue
            piece = next(each, None)
            if piece is None:
                streams[place] = None
            else:
                step[place] = piece
        if not any(streams):
            return
        yield step
