"""The demo model's card: what it is and says, with the figures of the run that made it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figures:
    """What a training run measured. Losses in nats per token; minutes of one core's time."""

    parameters: int
    documents: int
    characters: int
    digest: str
    tokens: int
    tokens_seen: int
    train_loss: float
    held_out_loss: float
    bytes_per_token: float
    minutes: float
    recipe: Mapping[str, float]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer of at most 60 tokens; `ended` where the model stopped by itself."""

    prompt: str
    style: str
    text: str
    ended: bool


def write_card(path: Path, figures: Figures, samples: Sequence[Sample]) -> None:
    path.write_text(card(figures, samples), encoding="utf-8")


def card(figures: Figures, samples: Sequence[Sample]) -> str:
    """The card as Markdown."""
    millions = f"{figures.parameters / 1e6:.1f}"
    request = {
        "inputs": "The with statement",
        "parameters": {"max_new_tokens": 60, "repetition_penalty": 1.1},
    }
    shown = "\n".join(_shown(sample) for sample in samples)
    return f"""---
license: psf-2.0
language: en
pipeline_tag: text-generation
---
# The demo model

A Llama of {millions} million parameters that writes text in the manner of Python's documentation.
It exists so that `make run` answers with words and downloads nothing. It completes text and was
not taught to chat. **It knows nothing: what it says about Python is often wrong.**

```
curl localhost:8080/invocations -H 'content-type: application/json' \\
  -d '{json.dumps(request)}'
```

| | |
|---|---|
{_rows(figures)}

Made by `python tools/train_demo_model.py`; the same versions on the same kind of CPU make the same
weights.

## What it says
At most 60 tokens, with `repetition_penalty` 1.1; sampled: temperature 0.7, top-p 0.9.
⏹: it ended by itself.

{shown}"""


def _rows(figures: Figures) -> str:
    bits = figures.held_out_loss / math.log(2) / figures.bytes_per_token
    passes = figures.tokens_seen / figures.tokens
    rows = {
        "Architecture": "`LlamaForCausalLM`: 4 layers, hidden size 192, 6 heads over 2 key-value "
        "heads, 1,024 tokens of context",
        "Vocabulary": "2,048 tokens, byte-level BPE, "
        f"{figures.bytes_per_token:.2f} bytes per token on held-out text",
        "Weights": f"{figures.parameters:,} parameters, float16, tied embeddings",
        "Text": f"{figures.documents:,} documents, {figures.characters:,} characters: the topics "
        "of the language reference (`pydoc_data.topics`) and the docstrings of the standard "
        f"library of CPython {figures.versions['CPython']}. © Python Software Foundation, "
        "PSF licence version 2",
        "SHA-256 of the text": f"`{figures.digest}`",
        "Training": f"{figures.tokens_seen:,} tokens, {passes:.1f} passes over {figures.tokens:,}; "
        f"{figures.minutes:.0f} minutes of one CPU core",
        "Loss": f"{figures.train_loss:.3f} nats per token at the end of training, "
        f"{figures.held_out_loss:.3f} on held-out documents ({bits:.2f} bits per byte)",
        "Recipe": ", ".join(f"{name} {value}" for name, value in figures.recipe.items()),
        "Versions": ", ".join(f"{name} {value}" for name, value in figures.versions.items()),
    }
    return "\n".join(f"| {name} | {text} |" for name, text in rows.items())


def _shown(sample: Sample) -> str:
    text = f"**{sample.prompt}**{sample.text}".replace("\n", "\n> ")
    return f"{sample.style}{' ⏹' if sample.ended else ''}\n\n> {text}\n"
