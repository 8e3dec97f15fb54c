"""Wraps the handler that comes along: an answer says yes or no, and how sure it is."""

import json

from djl_python import Input, Output
from djl_python.huggingface import HuggingFaceService


class Verdict(HuggingFaceService):
    def inference(self, inputs: Input) -> Output:
        found = json.loads(super().inference(inputs).content.value_at(0))
        best = max(found, key=lambda each: each["score"])
        verdict = {"good": best["label"] == "POSITIVE", "sure": best["score"]}
        return Output().add_property("Content-Type", "application/json").add(verdict)


_service = Verdict()


def handle(inputs: Input) -> Output | None:
    if not _service.initialized:
        _service.initialize(inputs.get_properties())
    return None if inputs.is_empty() else _service.inference(inputs)
