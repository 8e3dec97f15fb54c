"""Whether DeepSpeed's kernels take a model's layers ("kernel injection"), and why not. Pure.

An injected layer is a whole: it keeps K and V in a workspace of DeepSpeed's own, for one padded
batch that starts and ends together, and it is called with the arguments of the transformers of its
time. LMI-Dist's batches change at every step and its KV cache is paged, so under its scheduler the
layers stay transformers' own and AutoTP divides them; a model is injected only where whoever runs
it takes batches as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Model types of the layer classes in deepspeed.module_inject.replace_policy (0.19.8), as far as
# transformers 5 still has the class.
POLICIES: Final = frozenset(
    {
        "bert",
        "bloom",
        "clip",
        "distilbert",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "llama",
        "opt",
        "roberta",
    }
)


@dataclass(frozen=True, slots=True)
class Injection:
    """Whether to inject. reason: why, or why not, for a person."""

    inject: bool
    reason: str


def decide(kind: str, device: str, *, paged: bool, asked: bool | None) -> Injection:
    """Whether DeepSpeed's kernels take the layers of a model of type `kind`.

    device: cpu or cuda. paged: whether LMI-Dist's scheduler runs it. asked: the user's
    `replace_with_kernel_inject`, None where nothing is said.
    """
    if asked is False:
        return Injection(False, "replace_with_kernel_inject is false")
    if device != "cuda":
        return Injection(False, "DeepSpeed's kernels are for GPUs")
    if kind not in POLICIES:
        return Injection(False, f"DeepSpeed has no kernels for {kind}")
    if paged:
        why = "the injected layers keep K and V for one padded batch, and here batches are paged"
        return Injection(False, why)
    return Injection(True, f"DeepSpeed has kernels for {kind}")
