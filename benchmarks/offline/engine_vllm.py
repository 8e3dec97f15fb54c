"""vLLM as a subject, in its own environment: its engine's step loop, which `LLM.generate` uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import vllm
from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind

from benchmarks.offline.loop import Ids, Piece
from benchmarks.offline.serve import Ready, Setting, serve


class Vllm:
    """A step is the engine's."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._numbers: dict[str, int] = {}
        self._count = 0

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self._count += 1
        name = str(self._count)
        self._numbers[name] = number
        params = SamplingParams(
            temperature=0.0,
            max_tokens=output,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._engine.add_request(name, {"prompt_token_ids": prompt}, params)

    def step(self) -> Sequence[Piece]:
        pieces = []
        for output in self._engine.step():
            number = self._numbers[output.request_id]
            if output.finished:
                del self._numbers[output.request_id]
            pieces.append(Piece(number, list(output.outputs[0].token_ids), output.finished))
        return pieces


def load(setting: Setting) -> Ready:
    llm = LLM(
        model=setting.model,
        dtype=setting.dtype,
        skip_tokenizer_init=True,
        max_model_len=setting.max_tokens,
        max_num_seqs=setting.max_batch,
        enable_prefix_caching=False,
        seed=0,
        **setting.options,
    )
    return Ready(Vllm(llm.llm_engine), {"vllm": vllm.__version__})


if __name__ == "__main__":
    serve(load)
