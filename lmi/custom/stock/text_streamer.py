"""A streamer for transformers' `generate`, read as an iterator of texts."""

from __future__ import annotations

from typing import Any

from transformers import TextIteratorStreamer


class HFStreamer(TextIteratorStreamer):  # type: ignore[misc]
    """Give it to `generate` as `streamer`, in a thread, and iterate over it."""

    def __init__(self, tokenizer: Any, skip_prompt: bool = True, **decode_kwargs: Any) -> None:
        decode_kwargs.setdefault("skip_special_tokens", True)
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
