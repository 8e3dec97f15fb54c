"""LMI-Dist's C++: kernels for the CPU and the collective of ranks on one host, by ctypes."""
