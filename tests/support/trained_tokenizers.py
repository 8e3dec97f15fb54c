"""Tokenizers of each kind, trained here on a few sentences in many scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmi.text import Tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and doesn't look back.",
    "def main(argv):\n    return [int(word) for word in argv]\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "色は匂へど散りぬるを我が世誰ぞ常ならん。",
    "नमस्ते दुनिया, यह एक परीक्षण है।",
    "Emoji: 😀 👩‍👩‍👧 🇩🇪 é (e + combining) ﷽",
] * 4
SPECIALS = ["<s>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(vocab_size: int = 600) -> Rust:
    """GPT-2's kind; three added tokens come on top of the vocabulary."""
    tokenizer = Rust(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=alphabet,
            special_tokens=SPECIALS,
            show_progress=False,
        ),
    )
    tokenizer.add_tokens(["\n\n", "<tag>", "日本"])
    return tokenizer


def byte_fallback() -> Rust:
    """Llama 2's kind: ▁ for spaces, byte tokens for what the vocabulary lacks."""
    tokenizer = Rust(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.train_from_iterator(
        [line for line in CORPUS if line.isascii()],
        trainers.BpeTrainer(
            vocab_size=450, special_tokens=[*SPECIALS, *BYTES], show_progress=False
        ),
    )
    # The trainer made the byte tokens special; in a real vocabulary they are ordinary ones.
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [
        token for token in described["added_tokens"] if token["content"] in SPECIALS
    ]
    return Rust.from_str(json.dumps(described))


def metaspace() -> Rust:
    """T5's kind."""
    tokenizer = Rust(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
        ),
    )
    return tokenizer


def word_piece() -> Rust:
    """BERT's kind."""
    tokenizer = Rust(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIALS, show_progress=False),
    )
    return tokenizer


def suffixed() -> Rust:
    """The first GPT's kind, whose decoder is no concatenation."""
    tokenizer = Rust(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=SPECIALS,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    return tokenizer


def bare() -> Rust:
    """No decoder at all: tokens are joined with spaces."""
    tokenizer = Rust(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False)
    )
    return tokenizer


KINDS: dict[str, Callable[[], Rust]] = {
    make.__name__: make
    for make in (byte_level, byte_fallback, metaspace, word_piece, suffixed, bare)
}


def add_bos(tokenizer: Rust) -> Rust:
    """Let a tokenizer begin every text with <s>, as most models' do."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


class Kind:
    """A trained tokenizer, ours and the library's over the same file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.rust = Rust.from_file(str(folder / "tokenizer.json"))
        self.ours = Tokenizer.load(folder)
