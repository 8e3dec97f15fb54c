"""A Llama of about 100 million random parameters, the same in every run, that says text.

The shape is that of the reference measurements: hidden size 768, 12 layers, 12 heads in 4 groups,
vocabulary 32,000, tied head. Its byte-level BPE is made, not trained: all pairs of letters, then
pairs of pairs until the vocabulary is full, so that every id is a piece of text.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Final

VOCABULARY: Final = 32_000
SPECIALS: Final = ("<pad>", "<s>", "</s>")
SPACE: Final = "Ġ"  # how the byte-level alphabet writes it
LETTERS: Final = "etaoinshrdlcumwfgypbvkjxqz"


def write_model(folder: Path, seed: int = 0) -> None:
    """Weights in float32 (about 350 MB), configuration and tokenizer. Takes some seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """A `tokenizer.json` of VOCABULARY pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = list(SPECIALS) + sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [first + second for first in SPACE + LETTERS for second in LETTERS]
    fours = (first + second for first in pairs for second in pairs if SPACE not in second)
    merges = [(pair[0], pair[1]) for pair in pairs]
    pieces += pairs
    for four in itertools.islice(fours, VOCABULARY - len(pieces)):
        pieces.append(four)
        merges.append((four[:2], four[2:]))
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(special, special=True) for special in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))


def prompts(folder: Path, count: int, tokens: int, seed: int = 0) -> list[str]:
    """Different texts of about so many tokens: each a run of random pieces."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rng = random.Random(seed)
    first = len(SPECIALS) + 256
    texts = []
    for _ in range(count):
        ids = [rng.randrange(first, VOCABULARY) for _ in range(tokens)]
        texts.append(tokenizer.decode(tokenizer.encode(tokenizer.decode(ids)).ids[:tokens]))
    return texts
