"""The path of an accelerator: `python -m benchmarks.accelerator`."""
