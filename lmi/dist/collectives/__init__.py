"""How the ranks of a tensor-parallel model exchange numbers: see `lmi.dist.collectives.base`."""
