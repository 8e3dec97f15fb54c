"""vLLM as a subject that is asked for scores too: its engine's step loop, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import vllm
from vllm import LLM, SamplingParams

from benchmarks.offline.engine_vllm import Vllm
from benchmarks.offline.serve import Ready, Setting, serve
from benchmarks.quantized.fidelity import fidelity
from benchmarks.quantized.memory import held


def load(setting: Setting) -> Ready:
    options: dict[str, Any] = dict(setting.options)
    windows, reference = Path(options.pop("windows")), Path(options.pop("reference"))
    before, began = held(), time.monotonic()
    llm = LLM(
        model=setting.model,
        dtype=setting.dtype,
        skip_tokenizer_init=True,
        max_model_len=setting.max_tokens,
        max_num_seqs=setting.max_batch,
        enable_prefix_caching=False,
        enforce_eager=True,
        seed=0,
        **options,
    )
    facts = {"vllm": vllm.__version__, "load seconds": f"{time.monotonic() - began:.3f}"}
    model = _model(llm)
    facts["bytes held"] = str(held() - before)
    facts["bytes counted"] = str(_counted(model))
    facts |= fidelity(_Scores(llm, model), windows, reference)
    return Ready(Vllm(llm.llm_engine), facts)


class _Scores:
    """Prompt logprobs make the model score all but the last token; its logits are overheard."""

    def __init__(self, llm: Any, model: Any) -> None:
        self._llm = llm
        self._rows: list[torch.Tensor] = []
        compute = model.compute_logits

        def overhear(hidden: torch.Tensor, *rest: Any, **named: Any) -> Any:
            logits = compute(hidden, *rest, **named)
            self._rows.append(logits.float().clone())
            return logits

        model.compute_logits = overhear

    def __call__(self, ids: Sequence[int]) -> torch.Tensor:
        self._rows.clear()
        params = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, ignore_eos=True
        )
        self._llm.generate([{"prompt_token_ids": list(ids)}], params, use_tqdm=False)
        return next(rows for rows in self._rows if len(rows) == len(ids) - 1)


def _model(llm: Any) -> Any:
    """The module that this process computes."""
    executor = llm.llm_engine.engine_core.engine_core.model_executor
    return executor.driver_worker.worker.model_runner.model


def _counted(model: torch.nn.Module) -> int:
    """Bytes of the decoder layers' parameters."""
    return sum(
        [p.nbytes for name, p in model.named_parameters() if ".layers." in name and p.dim() > 1]
    )


if __name__ == "__main__":
    serve(load)
