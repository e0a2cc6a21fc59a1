"""Benchmark: one step of each network, beside a plain PyTorch loop and the matrix peak of the device."""
