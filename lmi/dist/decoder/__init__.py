"""LMI-Dist's own decoder: the layer program of the Llama family over `lmi.dist.kernels`."""
