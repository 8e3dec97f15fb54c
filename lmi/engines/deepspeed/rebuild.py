"""One model, as DeepSpeed's `init_inference` rebuilds it for this rank.

It finds out by the names and the order of a model's layers which of them to split by their outputs
and which by their inputs. Where it is mistaken the model runs and answers nonsense. So the logits
of a few tokens are compared before and after.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import PreTrainedModel

from lmi.core import ModelError
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.engine import Progress
from lmi.dist.library import Details
from lmi.dist.loader import vocabulary
from lmi.dist.parallel.degrees import refusal
from lmi.dist.quantized.at_load import OWN
from lmi.dist.quantized.divided import Divider
from lmi.engines.deepspeed.call import init_inference, release
from lmi.engines.deepspeed.injection import decide
from lmi.engines.deepspeed.quantized import Keeper, Numbers, put_in, take_out
from lmi.engines.deepspeed.settings import Settings

_PROBE_TOKENS: Final = 8
# As long as the front waits for all of the loading.
_LOAD_SECONDS: Final = 3600.0

# Families whose positions are a bias by head, of which LMI-Dist's adapters have that of all heads.
_BIASED: Final = frozenset({"bloom", "falcon", "mpt"})

# Largest difference that dividing a model may make, relative to its logits' spread: far above the
# rounding of sums in another order, far below what a wrong split does.
_TOLERANCE: Final = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
# The same for quantised weights, and for activations that are quantised too: a rank that has a part
# of the inputs has a scale of its own for them.
_WEIGHTS_TOLERANCE: Final = 0.02
_ACTIVATIONS_TOLERANCE: Final = 0.1


class DeepSpeed:
    """A `lmi.dist.library.Library`."""

    engine = "deepspeed"

    def __init__(
        self,
        config: DistConfig,
        settings: Settings,
        device: torch.device,
        collective: Collective | None = None,
        sums: str = "",
    ) -> None:
        """collective: of the ranks, None where there is one. sums: what carries its sums."""
        self.title = f"DeepSpeed {release()}"
        self._config = config
        self._settings = settings
        self._device = device
        self._collective = collective
        self._sums = sums
        self.divider: Divider | None = None if collective is None else Keeper()

    def check(self, config: DistConfig, model_config: Any) -> None:
        """See `Library`. Whole heads go to each rank, and as many to all: they plan alike."""
        text = model_config.get_text_config(decoder=True)
        heads = int(text.num_attention_heads)
        kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
        parts = {"heads": heads, "KV heads": kv_heads}
        if (want := refusal(parts, config.tensor_parallel)) is not None:
            raise config.error("tensor_parallel", want)
        kind = model_config.model_type
        if config.tensor_parallel > 1 and kind in _BIASED:
            want = f"the bias by head that {kind} adds to its attention is not divided; expected 1"
            raise config.error("tensor_parallel", want)
        if config.tensor_parallel > 1 and config.quantize not in ("none", *OWN):
            own = ", ".join(OWN)
            want = f"DeepSpeed can't divide another library's layers; expected one of {own}"
            raise config.error("quantize", want)

    def rebuild(
        self, model: PreTrainedModel, progress: Progress
    ) -> tuple[PreTrainedModel, Details]:
        """See `Library`."""
        kind = model.config.model_type
        injection = decide(kind, self._device.type, paged=True, asked=self._settings.kernel_inject)
        degree = 1 if self._collective is None else self._collective.size
        before = self._logits(model)
        if self._collective is not None:
            self._collective.meet(_LOAD_SECONDS)
        progress("DeepSpeed divides", 0, 1)
        dtype = model.dtype
        taken = take_out(model)
        tolerance = max(_TOLERANCE[dtype], *(_rounding(one) for one in taken.values()), 0.0)
        rebuilt = init_inference(
            model,
            dtype=dtype,
            device=self._device.type,
            degree=degree,
            inject=injection.inject,
            # Else it would move what has no memory.
            further={**self._further(), "keep_module_on_host": bool(taken)},
        )
        if taken:
            put_in(rebuilt, taken)
            _own_memory(rebuilt)
            rebuilt = rebuilt.to(self._device)
        self._compare(before, self._logits(rebuilt), tolerance, kind)
        progress("DeepSpeed divides", 1, 1)
        divided = f"AutoTP among {degree} ranks" if degree > 1 else "no layer is divided"
        details = [("DeepSpeed", divided), ("kernel injection", f"no: {injection.reason}")]
        if self._sums:
            details.append(("sums", self._sums))
        details += self._without_effect()
        return rebuilt, tuple(details)

    def _further(self) -> dict[str, Any]:
        settings = self._settings
        found: dict[str, Any] = {"return_tuple": settings.return_tuple}
        if settings.max_tokens is not None:
            found["max_out_tokens"] = settings.max_tokens
        return found

    def _without_effect(self) -> list[tuple[str, str]]:
        """What was asked for and can't be: said, since nothing is changed by it but speed."""
        found = []
        if self._settings.enable_cuda_graph:
            why = "off: DeepSpeed captures a pass of one shape, and here each step has its own"
            found.append(("DeepSpeed's CUDA graphs", why))
        if not self._settings.low_cpu_mem_usage:
            found.append(("low_cpu_mem_usage", "on: transformers always reads weights so"))
        return found

    def _logits(self, model: PreTrainedModel) -> torch.Tensor:
        """(tokens, vocabulary), of the model's own attention."""
        size = vocabulary(model, model.config.get_text_config(decoder=True))
        ids = [(7 * i + 3) % size for i in range(_PROBE_TOKENS)]
        try:
            with torch.inference_mode():
                out = model(torch.tensor([ids], device=self._device), use_cache=False)
        except RuntimeError as error:  # of shapes that don't fit each other
            kind = model.config.model_type
            words = " ".join(str(error).split())
            raise ModelError(
                f"{self._config.model}: {self.title} can't run a model of type {kind}: {words}"
            ) from error
        logits: torch.Tensor = out.logits[0].float()
        return logits

    def _compare(
        self, before: torch.Tensor, after: torch.Tensor, tolerance: float, kind: str
    ) -> None:
        spread = (before.amax() - before.amin()).clamp_min(1e-6)
        difference = ((after - before).abs().amax() / spread).item()
        if not difference <= tolerance:
            raise ModelError(
                f"{self._config.model}: {self.title} divides a model of type {kind} wrongly: its "
                f"logits change by {difference:.2g} of their spread; expected tensor_parallel 1, "
                "or engine lmi-dist"
            )


def _rounding(numbers: Numbers) -> float:
    return _ACTIVATIONS_TOLERANCE if numbers.weight.activation_bits else _WEIGHTS_TOLERANCE


def _own_memory(model: torch.nn.Module) -> None:
    """Copy what is a view of a whole weight, so that the whole can go."""
    for parameter in model.parameters():
        if parameter.untyped_storage().nbytes() > parameter.nbytes:
            parameter.data = parameter.detach().clone()
