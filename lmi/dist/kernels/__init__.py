"""The operations of a decoder, per kind of processor: see `lmi.dist.kernels.base`."""
