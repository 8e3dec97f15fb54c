"""`question-answering`: the span of a context that answers a question.

A context longer than the model sees is cut into overlapping windows; the best span of all wins. Its
score is the probability of its start times that of its end, within its window's context.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from lmi.custom.stock import generation
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded

_WINDOW: Final = 384  # tokens of question and context together, as the models were trained
_STRIDE: Final = 128  # tokens that two windows share
_LONGEST: Final = 15  # tokens of an answer
_PARAMETERS: Final = ("max_answer_len", "top_k", "doc_stride", "max_seq_len")


class Span(NamedTuple):
    """An answer. start, end: its characters in the context."""

    score: float
    start: int
    end: int
    answer: str


def load(settings: HuggingFaceOptions) -> Loaded:
    """A model that finds answers in texts."""
    from transformers import AutoModelForQuestionAnswering

    model = generation.on_device(AutoModelForQuestionAnswering, settings)
    tokenizer = generation.load_tokenizer(settings, padding_side="right")

    def predict(inputs: list[Any], **parameters: Any) -> list[Any]:
        for name in parameters:
            if name not in _PARAMETERS:
                raise ValueError(f"parameters.{name}: expected {', '.join(_PARAMETERS)}")
        return [_answer(model, tokenizer, each, **parameters) for each in inputs]

    return Loaded(predict, model, tokenizer)


def _answer(
    model: Any,
    tokenizer: Any,
    value: Any,
    max_answer_len: int = _LONGEST,
    top_k: int = 1,
    doc_stride: int = _STRIDE,
    max_seq_len: int = _WINDOW,
) -> Any:
    question, context = _texts(value)
    spans = sorted(
        _spans(
            model,
            tokenizer,
            question,
            context,
            max_answer_len,
            doc_stride,
            min(max_seq_len, tokenizer.model_max_length),
        ),
        reverse=True,
    )
    best = [each._asdict() for each in spans[:top_k]]
    return best[0] if top_k == 1 and best else best


def _texts(value: Any) -> tuple[str, str]:
    if isinstance(value, dict):
        question, context = value.get("question"), value.get("context")
        if isinstance(question, str) and isinstance(context, str) and question and context:
            return question, context
    raise ValueError("inputs: expected question and context, two texts")


def _spans(
    model: Any,
    tokenizer: Any,
    question: str,
    context: str,
    longest: int,
    stride: int,
    window: int,
) -> list[Span]:
    """The best span of each window."""
    import torch

    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=window,
        stride=min(stride, window // 2),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=True,
        return_tensors="pt",
    )
    offsets = encoded.pop("offset_mapping").tolist()
    encoded.pop("overflow_to_sample_mapping", None)
    inside = [
        torch.tensor([place == 1 for place in encoded.sequence_ids(row)])
        for row in range(len(offsets))
    ]
    with torch.inference_mode():
        out = model(**encoded.to(model.device))
    found = []
    for row, mask in enumerate(inside):
        starts = out.start_logits[row].float().cpu().masked_fill(~mask, -torch.inf).softmax(0)
        ends = out.end_logits[row].float().cpu().masked_fill(~mask, -torch.inf).softmax(0)
        # Every start with every end from it on, at most `longest` tokens.
        scores = torch.outer(starts, ends).triu().tril(longest - 1)
        best = int(scores.argmax())
        first, last = divmod(best, scores.shape[1])
        start, end = offsets[row][first][0], offsets[row][last][1]
        found.append(Span(float(scores.flatten()[best]), start, end, context[start:end]))
    return found
