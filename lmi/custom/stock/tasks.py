"""The tasks that a transformers model answers, and which one a model is for.

Most are pipelines of the installed transformers. Some that clients know are none today; they are
answered by modules of ours over the model classes.
"""

from __future__ import annotations

from typing import Final

from lmi.core import ConfigError, ModelError
from lmi.custom.stock import (
    conversation,
    embedding,
    generation,
    options,
    pipelines,
    question_answering,
)
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded

# The end of an architecture's name tells its task.
_ENDINGS: Final = (
    ("TapasForQuestionAnswering", "table-question-answering"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForTokenClassification", "token-classification"),
    ("ForSequenceClassification", "text-classification"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("BloomModel", "text-generation"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("MTModel", "text2text-generation"),
    ("EncoderDecoderModel", "text2text-generation"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForAudioClassification", "audio-classification"),
    ("ForCTC", "automatic-speech-recognition"),
)
_T5: Final = "T5WithLMHeadModel"  # ends like one that generates without an encoder

_TEXT_TO_TEXT: Final = {
    "text2text-generation": "generated_text",
    "summarization": "summary_text",
    "translation": "translation_text",
}
"""Tasks of models with an encoder and a decoder, and the field of each one's answer."""

_ALIASES: Final = {
    "generate": "text-generation",
    "classify": "text-classification",
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "embed": "text-embedding",
    "embedding": "text-embedding",
    "transcription": "automatic-speech-recognition",
    "text-to-speech": "text-to-audio",
}


_LOADERS: Final = {
    "text-generation": generation.load_causal,
    "conversational": conversation.load,
    "question-answering": question_answering.load,
    "text-embedding": embedding.load,
}


def infer(architectures: list[str] | None) -> str:
    """The task of a model's first architecture. Raises ConfigError where none is known."""
    name = (architectures or [""])[0]
    if name == _T5:
        return "text2text-generation"
    for ending, task in _ENDINGS:
        if name.endswith(ending):
            return task
    raise ConfigError(
        "option.task",
        None,
        options.SOURCE,
        f"the model's architecture ({name or 'none is named'}) does not tell its task: name it",
    )


def canonical(task: str) -> str:
    """The name of a task that may be given by another one."""
    return _ALIASES.get(task, task)


def load(task: str, settings: HuggingFaceOptions) -> Loaded:
    """Load a model for a task. Raises ConfigError for one that is unknown, ModelError."""
    try:
        return _load(canonical(task), settings)
    except (OSError, ImportError) as error:
        # What transformers raises for files that are missing, and for a library that is.
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{settings.model_id_or_path}: {first}") from error


def _load(task: str, settings: HuggingFaceOptions) -> Loaded:
    family = task.partition("_")[0]  # translation_en_to_fr
    if family in _TEXT_TO_TEXT:
        return generation.load_text_to_text(settings, task, _TEXT_TO_TEXT[family])
    if task in _LOADERS:
        return _LOADERS[task](settings)
    return pipelines.load(settings, task)
