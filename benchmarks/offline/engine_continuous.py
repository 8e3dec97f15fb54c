"""transformers' own continuous batching as a subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from benchmarks.offline.loop import Ids, Piece
from benchmarks.offline.serve import Ready, Setting, serve

PAGE = 256  # its own default, in tokens
RESULT_SECONDS = 1.0


class Continuous:
    """Its manager works in a thread of its own; a step waits for the next answer.

    Streaming would repeat all ids so far with every event, so answers come whole, with the times
    that the manager noted.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._numbers: dict[str, int] = {}
        self._count = 0

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self._count += 1
        name = str(self._count)
        self._numbers[name] = number
        taken = self._manager.add_request(
            prompt,
            request_id=name,
            max_new_tokens=output,
            record_timestamps=True,
            eos_token_id=-1,
        )
        if taken is None:
            raise RuntimeError("the manager refused a request")

    def step(self) -> Sequence[Piece]:
        result = self._manager.get_result(timeout=RESULT_SECONDS)
        if result is None:
            if not self._manager.is_running():
                raise RuntimeError("the manager's thread ended")
            return ()
        if result.error is not None:
            raise RuntimeError(f"the manager failed a request: {result.error}")
        number = self._numbers.pop(result.request_id)
        first = result.timestamps[0] if result.timestamps else None
        return (Piece(number, result.generated_tokens, True, first),)


def load(setting: Setting) -> Ready:
    torch.set_num_threads(setting.threads)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        setting.model, dtype=getattr(torch, setting.dtype), attn_implementation="sdpa"
    )
    model.eval()
    manager = model.init_continuous_batching(
        GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=setting.max_batch * -(-setting.max_tokens // PAGE) + 1,
            max_batch_tokens=512,
            allow_block_sharing=False,
            auto_switch_to_flash=False,
        ),
    )
    manager.start()
    facts = {"transformers": transformers.__version__, "attention": "sdpa"}
    return Ready(Continuous(manager), facts)


if __name__ == "__main__":
    serve(load)
