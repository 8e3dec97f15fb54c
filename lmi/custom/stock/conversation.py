"""`conversational`: the next reply in a dialogue, from a model that goes on with a text.

An input is a text; a dialogue as clients of the former pipeline send it, with `past_user_inputs`,
`generated_responses` and `text`; or a list of messages. The model's chat template writes the
prompt; where there is none, the turns stand between end tokens.
"""

from __future__ import annotations

from typing import Any

from lmi.custom.stock import generation
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded


def load(settings: HuggingFaceOptions) -> Loaded:
    """A model that answers the last turn of a dialogue."""
    causal = generation.load_causal(settings)
    model, tokenizer = causal.model, causal.tokenizer

    def predict(inputs: list[Any], **parameters: Any) -> list[Any]:
        return [_reply(model, tokenizer, each, {**parameters}, settings.stop) for each in inputs]

    return Loaded(predict, model, tokenizer)


def _reply(
    model: Any, tokenizer: Any, value: Any, parameters: dict[str, Any], stop: tuple[str, ...]
) -> dict[str, Any]:
    import torch

    messages = messages_of(value)
    told, seed, _ = generation.tell(parameters, model, tokenizer, stop)
    tokens = _tokens(tokenizer, messages).to(model.device)
    if seed is not None:
        torch.manual_seed(seed)
    with torch.inference_mode():
        found = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **told)
    text = tokenizer.decode(found[0, tokens.shape[1] :], skip_special_tokens=True)
    replies = [each["content"] for each in messages if each["role"] == "assistant"]
    asked = [each["content"] for each in messages if each["role"] == "user"]
    return {
        "generated_text": text,
        "conversation": {"past_user_inputs": asked, "generated_responses": [*replies, text]},
    }


def messages_of(value: Any) -> list[dict[str, Any]]:
    """An input as messages. Raises ValueError."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        if all({"role", "content"} <= each.keys() for each in value):
            return value
    elif isinstance(value, dict) and isinstance(value.get("text"), str):
        asked = [*value.get("past_user_inputs", ()), value["text"]]
        replies = value.get("generated_responses", ())
        if len(replies) == len(asked) - 1:
            turns: list[dict[str, Any]] = []
            for number, text in enumerate(asked):
                turns.append({"role": "user", "content": text})
                if number < len(replies):
                    turns.append({"role": "assistant", "content": replies[number]})
            return turns
    raise ValueError(
        "inputs: expected a text, messages with role and content, or past_user_inputs, as many "
        "generated_responses, and text"
    )


def _tokens(tokenizer: Any, messages: list[dict[str, Any]]) -> Any:
    if tokenizer.chat_template:
        found = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return found["input_ids"]
    end = tokenizer.eos_token or "\n"
    text = "".join(f"{message['content']}{end}" for message in messages)
    return tokenizer(text, return_tensors="pt").input_ids
