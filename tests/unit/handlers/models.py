"""Tiny random models for each task, with a tokenizer of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.support.models import save_random

# The last one is what transformers asks of a vocabulary where it looks for stop strings.
_TEXT: Final = (
    "the a capital of France is Paris and Berlin Germany who what where when dog cat runs sleeps "
    "good bad film book this that was very not ? . , summarize : one two three four five abcdef"
)
WORDS: Final = _TEXT.split()
SPECIAL: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

_BERT: Final[dict[str, Any]] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def write_tokenizer(folder: Path) -> None:
    """Words, BERT's special tokens around a text."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tf.PreTrainedTokenizerFast(
        tokenizer_object=rust,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        eos_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)


def make(folder: Path, kind: str) -> Path:
    """A model for a task (a key of KINDS) and its tokenizer."""
    config, auto = KINDS[kind]
    save_random(folder, config(), auto)
    write_tokenizer(folder)
    return folder


def _labelled(**more: Any) -> tf.PreTrainedConfig:
    return tf.BertConfig(
        **_BERT, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}, **more
    )


def _entailing() -> tf.PreTrainedConfig:
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    return tf.BertConfig(
        **_BERT, id2label=labels, label2id={name: number for number, name in labels.items()}
    )


def _causal() -> tf.PreTrainedConfig:
    return tf.LlamaConfig(
        **{**_BERT, "num_key_value_heads": 2}, eos_token_id=3, bos_token_id=2, pad_token_id=0
    )


def _text_to_text() -> tf.PreTrainedConfig:
    return tf.T5Config(
        vocab_size=_BERT["vocab_size"],
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        eos_token_id=3,
        pad_token_id=0,
        initializer_factor=4.0,
    )


KINDS: Final[dict[str, tuple[Any, Any]]] = {
    "text-classification": (_labelled, tf.AutoModelForSequenceClassification),
    "zero-shot-classification": (_entailing, tf.AutoModelForSequenceClassification),
    "token-classification": (_labelled, tf.AutoModelForTokenClassification),
    "question-answering": (_labelled, tf.AutoModelForQuestionAnswering),
    "fill-mask": (_labelled, tf.AutoModelForMaskedLM),
    "feature-extraction": (_labelled, tf.AutoModel),
    "text-generation": (_causal, tf.AutoModelForCausalLM),
    "text2text-generation": (_text_to_text, tf.AutoModelForSeq2SeqLM),
}
