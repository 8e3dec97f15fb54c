"""Which engine runs a model: what `engine` and `option.rolling_batch` mean in LMI 0.25 to 0.36.

LMI-Dist is alive here, so `lmi-dist` stays `lmi-dist` (0.33 rewrote it to vllm), and the old
`scheduler` means it too. What a user names is never replaced by something else: if it is not
installed, that is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

FUNCTIONS = "python"
"""The engine that generates no text by itself: handlers, the model's own and stock ones."""

DEEPSPEED_HANDLER = "djl_python.deepspeed"
"""The stock handler of DeepSpeed's tasks: what is no generation with continuous batching."""

NAMED = {
    "lmi-dist": "lmi-dist",
    "vLLM": "vllm",
    "TensorRT-LLM": "trtllm",
    "echo": "echo",
}
"""Values of `engine` that name one of ours directly."""

_BY_ROLLING_BATCH = {
    "vllm": "vllm",
    "lmi-dist": "lmi-dist",
    "scheduler": "lmi-dist",
    "trtllm": "trtllm",
    "deepspeed": "deepspeed",
    "tnx": "neuronx",
}
_BY_ENTRY_POINT = {
    "djl_python.deepspeed": "deepspeed",
    "djl_python.stable-diffusion": "python",  # which refuses it
    "djl_python.tensorrt_llm": "trtllm",
    "djl_python.transformers_neuronx": "neuronx",
    "djl_python.optimum_neuron": "neuronx",
    "djl_python.sklearn_handler": "python",
    "djl_python.xgboost_handler": "python",
    "djl_python.sentence_transformers": "python",
}
_BY_ENTRY_PACKAGE = {"djl_python.lmi_vllm": "vllm", "djl_python.lmi_trtllm": "trtllm"}
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# Encoder and decoder: of our engines only LMI-Dist's padded batches generate text with them.
_ENCODER_DECODER = frozenset(
    {"t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian", "longt5", "m2m_100"}
)
_GENERATING_TASKS = frozenset(
    {"auto", "text-generation", "text2text-generation", "conversational", "generate"}
)
# With nothing named: what LMI 0.36 would take first, then ours.
_PREFERENCE = ("vllm", "lmi-dist", "trtllm", "deepspeed", "python")
# engine=MPI of LMI 0.25: TensorRT-LLM where its image runs, else LMI-Dist.
_MPI_PREFERENCE = ("trtllm", "lmi-dist", "vllm", "deepspeed")


@dataclass(frozen=True, slots=True)
class Question:
    """What the choice depends on. model: the model's config.json where one is at hand.

    unable: engines that would refuse an option that is set, or the checkpoint, and why; "" where it
    is an option. async_mode: asked for, which makes `disable` mean the asynchronous engine of 0.36
    instead of no batching at all.
    """

    engine: str | None = None
    rolling_batch: str | None = None
    task: str | None = None
    entry_point: str | None = None
    has_custom_handler: bool = False
    features: tuple[str, ...] = ()
    model: Mapping[str, object] | None = None
    classic_model: bool = False
    unable: Mapping[str, str] = field(default_factory=dict)
    async_mode: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine and why. because: the option that decided, or None where nothing was said.

    entry_point: the stock handler that the choice implies; None where the options or the model
    say which.
    """

    engine: str
    reason: str
    because: str | None = None
    entry_point: str | None = None


class NoEngine(Exception):
    """No engine can be chosen. option: the one to change, or None; `str` ends a sentence."""

    def __init__(self, option: str | None, want: str) -> None:
        self.option = option
        super().__init__(want)


def choose(question: Question, installed: Collection[str]) -> Choice:
    """The engine for a model.

    Raises NoEngine for a contradiction, and for an engine that is not installed.
    """
    choice = _named(question) or _by_features(question, installed) or _by_model(question, installed)
    if choice.engine == "deepspeed" and "deepspeed" in installed:
        choice = _of_deepspeed(choice, question)
    if choice.engine == "neuronx":
        raise NoEngine(choice.because, "Neuron accelerators are not supported; GPUs and CPUs are")
    if choice.engine not in installed:
        raise NoEngine(choice.because, _not_installed(choice, question, installed))
    return choice


def _named(question: Question) -> Choice | None:
    """What the user says outright."""
    rolling = _BY_ROLLING_BATCH.get(question.rolling_batch or "")
    engine = question.engine
    if engine in NAMED:
        name = NAMED[engine]
        if rolling not in (None, name):
            raise NoEngine(
                "option.rolling_batch",
                f"engine={engine} and option.rolling_batch={question.rolling_batch} name two "
                "engines; keep one",
            )
        return Choice(name, f"engine={engine} names it", "engine")
    if engine is not None and engine not in ("Python", "MPI", "DeepSpeed"):
        raise NoEngine(
            "engine",
            f"{engine} runs in the DJL model server in Java only; "
            f"expected Python, MPI, DeepSpeed, {', '.join(NAMED)}",
        )
    if question.has_custom_handler:
        return Choice("python", "the folder's own handler takes the requests", "option.entryPoint")
    entry = _entry_point(question.entry_point)
    if rolling is not None:
        if engine == "DeepSpeed" and entry is None and rolling != "deepspeed":
            raise NoEngine(
                "option.rolling_batch",
                f"engine=DeepSpeed and option.rolling_batch={question.rolling_batch} name two "
                "engines; keep one",
            )
        note = (
            "; LMI-Dist took the scheduler's place" if question.rolling_batch == "scheduler" else ""
        )
        reason = f"option.rolling_batch={question.rolling_batch} names it{note}"
        return Choice(rolling, reason, "option.rolling_batch")
    if entry is not None:
        return Choice(
            entry, f"option.entryPoint={question.entry_point} is its handler", "option.entryPoint"
        )
    if engine == "DeepSpeed":
        return Choice("deepspeed", "engine=DeepSpeed names it", "engine")
    if question.classic_model:
        return Choice("python", "the folder holds a sklearn or XGBoost model")
    return None


def _of_deepspeed(choice: Choice, question: Question) -> Choice:
    """Its engine generates text with continuous batching; the rest is its handler's."""
    if question.rolling_batch == "deepspeed":
        return choice
    if _unbatched(question):
        why = "option.rolling_batch=disable asks for no continuous batching"
    elif _generates(question) is False or question.task == "conversational":
        why = f"{_kind(question)} is a task of its handler"
    elif _has_encoder(question):
        why = f"{_kind(question)} has an encoder, which is for its handler"
    else:
        return choice
    return Choice(FUNCTIONS, f"{choice.reason}; {why}", choice.because, DEEPSPEED_HANDLER)


def _entry_point(text: str | None) -> str | None:
    if text is None:
        return None
    for package, engine in _BY_ENTRY_PACKAGE.items():
        if text == package or text.startswith(package + "."):
            return engine
    return _BY_ENTRY_POINT.get(text)


def _by_features(question: Question, installed: Collection[str]) -> Choice | None:
    """What the image was made for, for a model that generates text.

    The variable describes an image, so it decides only among engines that are here and can.
    """
    if not question.features or _generates(question) is False:
        return None
    if _unbatched(question) or _has_encoder(question):
        return None
    for feature in ("lmi-dist", "vllm", "trtllm"):
        if feature not in question.features or feature not in installed:
            continue
        if feature not in question.unable:
            return Choice(feature, f"SERVING_FEATURES has {feature}", "SERVING_FEATURES")
    return None


def _unbatched(question: Question) -> bool:
    return question.rolling_batch == "disable" and not question.async_mode


def _by_model(question: Question, installed: Collection[str]) -> Choice:
    generates = _generates(question)
    if generates is False:
        return Choice(
            "python", f"{_kind(question)} needs a task of transformers, not text generation"
        )
    if _unbatched(question):
        return Choice(
            "python",
            "option.rolling_batch=disable asks for no continuous batching",
            "option.rolling_batch",
        )
    preference: tuple[str, ...] = _PREFERENCE
    if _has_encoder(question):
        preference = ("lmi-dist",)
    elif question.engine == "MPI":
        preference = _MPI_PREFERENCE
    here = [name for name in preference if name in installed]
    if not here:
        return Choice("lmi-dist", "it is the engine for models that generate text")
    able = [name for name in here if name not in question.unable]
    first = (able or here)[0]
    why = ["engine=MPI"] if question.engine == "MPI" else []
    if question.features and not any(name in installed for name in question.features):
        why.append(f"SERVING_FEATURES={','.join(question.features)} names nothing installed here")
    if generates:
        why.append(f"{_kind(question)} generates text")
    if able:
        why += _passed(here[: here.index(first)], question.unable)
    if len(here) == 1:
        why.append(f"{first} is what is installed here")
    else:
        why.append(f"of {', '.join(here)} installed here, {first} comes first")
    return Choice(first, "; ".join(why))


def _passed(names: Sequence[str], unable: Mapping[str, str]) -> Iterator[str]:
    """Why engines that would have come first do not."""
    told = [name for name in names if unable[name]]
    yield from (f"{name} can't: {unable[name]}" for name in told)
    silent = [name for name in names if name not in told]
    if silent:
        yield f"{' and '.join(silent)} can't honour every option set"


def _generates(question: Question) -> bool | None:
    """Whether the model generates text with a decoder; None where nothing says so."""
    if question.task is not None and question.task != "auto":
        return question.task in _GENERATING_TASKS
    if question.model is None:
        return None
    names = _architectures(question.model)
    return any(name.endswith(_GENERATES) for name in names) if names else None


def _has_encoder(question: Question) -> bool:
    return (question.model or {}).get("model_type") in _ENCODER_DECODER


def _architectures(model: Mapping[str, object]) -> tuple[str, ...]:
    listed = model.get("architectures")
    mapped = model.get("auto_map")
    names = [*listed] if isinstance(listed, list) else []
    names += [*mapped] if isinstance(mapped, dict) else []
    return tuple(
        name.removeprefix("AutoModel") if name.startswith("AutoModelFor") else name
        for name in names
        if isinstance(name, str)
    )


def _kind(question: Question) -> str:
    if question.task is not None and question.task != "auto":
        return f"option.task={question.task}"
    names = _architectures(question.model or {})
    return names[0] if names else "the model"


def _not_installed(choice: Choice, question: Question, installed: Collection[str]) -> str:
    """What would run here, and the edit that asks for it."""
    here = [name for name in _PREFERENCE if name in installed]
    head = f"{choice.reason}, but {choice.engine} is not installed"
    generates = _generates(question) is not False and not question.has_custom_handler
    if not here or not generates or question.classic_model:
        return f"{head}; installed: {', '.join(sorted(installed)) or 'none'}"
    edits = [f"option.rolling_batch={here[0]}"]
    if question.engine not in (None, "Python", "MPI"):
        edits.insert(0, "engine=Python")
    return f"{head}; {here[0]} would run it: write {' and '.join(edits)}"
