"""The fallback: any model that transformers can generate with, in padded batches.

For models whose state is not paged K and V (state-space models, MLA caches of their own, attention
that no seam reaches) and for encoder-decoder models. A batch admits only at its start and runs
until its last row ends (dynamic batching), so new requests wait; that, and the padding, is what it
costs. Everything else is as in `lmi.dist.core`: a token per step and row, each request's own
sampling parameters, seeds, cancels and logprobs.

    row.py     one choice with what its model reads
    forming.py which waiting rows run together (pure)
    state.py   a batch's caches: their size, and dropping rows
    passes.py  one batch through the model: transformers prepares, we step
    trial.py   how a model may be batched: it is tried, not believed
    model.py   the model from its folder
    core.py    requests in, events out
"""
