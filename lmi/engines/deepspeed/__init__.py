"""DeepSpeed as an engine for text: its AutoTP divides a transformers model, LMI-Dist serves it.

    lmi.dist      reads the weights, plans steps, pages the attention, samples, streams, ends ranks
    deepspeed     `init_inference`: which rank gets which part of which layer, and where it sums
    the sums      go through one of our collectives, or through DeepSpeed's own operator

So everything of LMI-Dist holds here too: continuous batching, cancellation, seeds, prefix cache.

    settings.py   what of the options is DeepSpeed's alone, and its configuration file (no torch)
    load.py       the card's loader: options to a job of ranks (no torch)
    core.py       what a worker makes: the environment, then
    rank.py       the core of a rank
    rebuild.py    one model: asked before and after it was divided, so that a wrong division shows
    quantized.py  a rank's part of weights that stay low-bit
    sums.py       what carries the sums between the ranks
    injection.py  whether DeepSpeed's kernels take a model's layers, and why not
    call.py       `init_inference` with its side effects taken back

Rules for a later editor: deepspeed is imported in `call`, `sums` and `quantized` only, and only in
a worker; the environment that it looks at once is set by `core` before that.
"""

from lmi.engines.deepspeed.load import load

__all__ = ["load"]
