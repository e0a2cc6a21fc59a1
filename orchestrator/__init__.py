"""Model-inversion sweeps: train targets, attack them, defend them, and measure what leaks."""

__version__ = "0.1.0"
