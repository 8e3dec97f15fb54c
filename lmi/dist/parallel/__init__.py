"""Tensor parallelism: one model computed by several processes, the ranks of a job.

    front ── rank 0 ┐            the front speaks with rank 0 alone: requests in, events out
               │    │ Collective
             rank 1 ┘ …          the followers hear every turn's requests and the sampled ids

Every rank runs the same deterministic core over its share of the weights. Rank 0 broadcasts what
changes it from outside (requests, cancels, the end) and the ids that it sampled, and nothing else.
"""
