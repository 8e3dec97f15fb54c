"""Counts words: a handler with state that is loaded once, batches, errors and a stream."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from djl_python import Input, Output


class WordCounter:
    """Stands for a model: loaded in the initialise call, asked afterwards."""

    def __init__(self) -> None:
        self.stop_words: frozenset[str] = frozenset()
        self.initialized = False

    def initialize(self, properties: dict[str, Any]) -> None:
        self.stop_words = frozenset(properties.get("stop_words", "").split(","))
        self.initialized = True

    def count(self, text: str) -> dict[str, int]:
        words = (word for word in text.lower().split() if word not in self.stop_words)
        return dict(Counter(words).most_common())


_model = WordCounter()


def handle(inputs: Input) -> Output | None:
    if not _model.initialized:
        _model.initialize(inputs.get_properties())
    if inputs.is_empty():
        return None  # the initialise call

    outputs = Output().add_property("Content-Type", "application/json")
    for index, request in enumerate(inputs.get_batches()):
        body = request.get_as_json()
        if body.get("stream") and not inputs.is_batch():
            return Output().add_stream_content(lines(body["text"]), None)
        place = index if inputs.is_batch() else None
        outputs.add_as_json(_model.count(body["text"]), key="data", batch_index=place)
    return outputs


def lines(text: str) -> Iterator[str]:
    for word in text.split():
        yield f"{word}\n"
