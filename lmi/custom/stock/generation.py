"""Text from transformers' own `generate`, whole batches at a time, and as a stream.

This is for requests that go to a model directly, without a rolling batch: one padded batch at a
time, with every parameter that `generate` has. Models that serve many clients belong behind an
engine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded

_NEW_TOKENS: Final = 30  # where neither the request nor the model says: LMI's default everywhere
_STREAM_TOKENS: Final = 50  # the same of streams, as scripts know them
_STREAM_TIMEOUT: Final = 300.0  # seconds for a token; then the stream ends with an error


def load_causal(settings: HuggingFaceOptions) -> Loaded:
    """A model that goes on with a text."""
    from transformers import AutoModelForCausalLM

    model = on_device(AutoModelForCausalLM, settings)
    tokenizer = load_tokenizer(settings, padding_side="left")

    def predict(inputs: list[Any], **parameters: Any) -> list[Any]:
        texts = _generate(model, tokenizer, inputs, parameters, settings.stop, keep_prompt=True)
        return [{"generated_text": text} for text in texts]

    return Loaded(predict, model, tokenizer)


def load_text_to_text(settings: HuggingFaceOptions, task: str, field: str) -> Loaded:
    """A model that answers a text with another. field: of its answer."""
    from transformers import AutoModelForSeq2SeqLM

    model = on_device(AutoModelForSeq2SeqLM, settings)
    tokenizer = load_tokenizer(settings)
    # What some models expect before the text, such as "summarize: ".
    known = getattr(model.config, "task_specific_params", None) or {}
    prefix = (known.get(task) or {}).get("prefix", "")

    def predict(inputs: list[Any], **parameters: Any) -> list[Any]:
        asked = [prefix + each if isinstance(each, str) else each for each in inputs]
        texts = _generate(model, tokenizer, asked, parameters, settings.stop, keep_prompt=False)
        return [{field: text} for text in texts]

    return Loaded(predict, model, tokenizer)


def on_device(kind: Any, settings: HuggingFaceOptions) -> Any:
    """A model of an auto class, ready to compute."""
    model = kind.from_pretrained(settings.model_id_or_path, **settings.loading()).eval()
    return model if settings.device is None else model.to(settings.device)


def load_tokenizer(settings: HuggingFaceOptions, **more: Any) -> Any:
    """The model's tokenizer; it pads with the end token where it has no other."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(
        settings.model_id_or_path, **settings.tokenizing(), **more
    )
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


class Told(NamedTuple):
    """parameters: what `generate` is told. seed: of drawing. full: whether the prompt is wanted in
    the answer; both None where the request does not say."""

    parameters: dict[str, Any]
    seed: int | None
    full: bool | None


def tell(
    parameters: dict[str, Any],
    model: Any,
    tokenizer: Any,
    stop: tuple[str, ...],
    new_tokens: int = _NEW_TOKENS,
) -> Told:
    """A request's parameters as `generate` has them: LMI's own names for stop strings and a seed.

    new_tokens: at most, where neither the request nor the model says.
    """
    told = dict(parameters)
    own = model.generation_config
    if not {"max_new_tokens", "max_length"} & told.keys() and not own.max_new_tokens:
        told["max_new_tokens"] = new_tokens
    ends = [*stop]
    for name in ("stop", "stop_sequences"):
        asked = told.pop(name, None) or []
        ends += [asked] if isinstance(asked, str) else asked
    if ends:
        told |= {"stop_strings": ends, "tokenizer": tokenizer}
    return Told(told, seed=told.pop("seed", None), full=told.pop("return_full_text", None))


def _generate(
    model: Any,
    tokenizer: Any,
    inputs: list[Any],
    parameters: dict[str, Any],
    stop: tuple[str, ...],
    *,
    keep_prompt: bool,
) -> list[str]:
    import torch

    _check_texts(inputs)
    told, seed, full = tell(parameters, model, tokenizer, stop)
    tokens = tokenizer(inputs, padding=True, return_tensors="pt").to(model.device)
    if seed is not None:
        torch.manual_seed(seed)
    with torch.inference_mode():
        found = model.generate(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, **told
        )
    if keep_prompt and full is False:
        found = found[:, tokens.input_ids.shape[1] :]
    texts: list[str] = tokenizer.batch_decode(found, skip_special_tokens=True)
    return texts


def stream(
    model: Any, tokenizer: Any, inputs: Any, stop: tuple[str, ...] = (), **parameters: Any
) -> Iterator[str]:
    """The texts that `generate` brings for one input, as they come.

    An exception inside comes out where the texts are read. A reader that leaves ends the
    generation at its next token.
    """
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    text = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    _check_texts([text])
    told, seed, full = tell(parameters, model, tokenizer, stop, _STREAM_TOKENS)
    streamer = TextIteratorStreamer(
        tokenizer, skip_prompt=not full, skip_special_tokens=True, timeout=_STREAM_TIMEOUT
    )
    left = threading.Event()
    tokens = tokenizer([text], return_tensors="pt").to(model.device)
    criteria = StoppingCriteriaList([lambda ids, scores, **_: _all(ids, left.is_set())])
    failures: list[BaseException] = []

    def generate() -> None:
        import torch

        try:
            if seed is not None:
                torch.manual_seed(seed)
            with torch.inference_mode():
                model.generate(
                    input_ids=tokens.input_ids,
                    attention_mask=tokens.attention_mask,
                    streamer=streamer,
                    stopping_criteria=criteria,
                    **told,
                )
        except BaseException as error:  # raised again where the texts are read
            failures.append(error)
            streamer.end()

    thread = threading.Thread(target=generate, daemon=True, name="lmi-generate")
    thread.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        left.set()
        thread.join(_STREAM_TIMEOUT)
    if failures:
        raise failures[0]


def _all(ids: Any, value: bool) -> Any:
    """A stopping criterion's answer: one for each row."""
    import torch

    return torch.full((ids.shape[0],), value, dtype=torch.bool, device=ids.device)


def _check_texts(inputs: list[Any]) -> None:
    for each in inputs:
        if not isinstance(each, str):
            raise ValueError(f"inputs: expected a text, not {type(each).__name__}")
