"""Kernels of GPUs, written in Triton. Nothing outside imports this package before a GPU is asked for."""
