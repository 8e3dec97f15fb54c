"""vLLM as an engine: its stepped engine as a core in a worker process of ours.

    the front's process                       the worker (`lmi.dist.worker`)
    text, stop strings, deltas  ──frames──►   VllmCore ─► Stepped ─► vLLM's scheduler and model
    (`lmi.dist.front`)          ◄──frames──   ids and numbers only

So vLLM's own second process, its detokenizer and its output objects take no part: one hop, one
frame for each step, and a death is seen by `lmi.dist.job` as any worker's. With several ranks vLLM
starts the others itself, below the worker. docs/vllm.md has what was measured.

Rules for a later editor: vllm is imported in the worker only, by `stepped`, which is the one module
that knows vLLM's inside; what differs between its releases is found there by looking, never by a
release's number. Options become arguments in `arguments`, pure, so that `lmi check` needs no vLLM.
"""

from lmi.engines.vllm.load import load

__all__ = ["load"]
