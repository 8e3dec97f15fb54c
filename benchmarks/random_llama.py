"""A Llama of random parameters, the same in every run, that says text.

Two sizes with a vocabulary of 32,000 and a tied head: one of about 100 million parameters, where
the model sets the pace, and one of about 5 million, where the layers around it do. The byte-level
BPE is made, not trained: all pairs of letters, then pairs of pairs until the vocabulary is full, so
that every id is a piece of text.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VOCABULARY: Final = 32_000
SPECIALS: Final = ("<pad>", "<s>", "</s>")
SPACE: Final = "Ġ"  # how the byte-level alphabet writes it
LETTERS: Final = "etaoinshrdlcumwfgypbvkjxqz"


@dataclass(frozen=True, slots=True)
class Size:
    """A model's shape. heads: of the queries. groups: of the keys and values."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    groups: int


SIZES: Final = {
    "100m": Size(hidden=768, intermediate=2048, layers=12, heads=12, groups=4),
    "5m": Size(hidden=128, intermediate=384, layers=4, heads=4, groups=4),
}


def write_model(folder: Path, seed: int = 0, size: Size = SIZES["100m"]) -> None:
    """Weights in float32 (about 350 MB or 20 MB), configuration and tokenizer. Takes some
    seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.groups,
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
    """A `tokenizer.json` of VOCABULARY pieces, and the class that takes it as it is."""
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
    names = {"pad_token": SPECIALS[0], "bos_token": SPECIALS[1], "eos_token": SPECIALS[2]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


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
