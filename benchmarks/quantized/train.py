"""Train the `5m` model: `python -m benchmarks.quantized.train FOLDER`, in minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers

from benchmarks.quantized.models import TOOLS

STEPS = 300
BATCH = 1024  # tokens
WINDOW = 128


def main() -> None:
    sys.path.insert(0, str(TOOLS))
    import demo_corpus
    import train_demo_model as demo

    torch.manual_seed(demo.SEED)
    texts = demo_corpus.documents()
    tokenizer = demo.train_tokenizer(texts)
    row = demo.encode(tokenizer, demo.split(texts)[0])
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=demo.VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=demo.CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    recipe = demo.Recipe(
        steps=STEPS, batch=BATCH, window=WINDOW, long_window=2 * WINDOW, rate=2e-3, warm_up=30
    )
    demo.train(model, row, recipe)
    demo.save(model, tokenizer, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
