"""One of several processes that share a device: `python -m benchmarks.accelerator.share DEVICE SECONDS WIDTH
BATCH` prints `ready`, waits for a line, trains a digit inverter and prints images a second."""

import sys
import time

import torch

from benchmarks.rows import Place, ready
from orchestrator.training.kernels import use_profile

CALLS = 8  # between two looks at the clock


def main(device: torch.device, seconds: float, width: float, batch: int) -> None:
    """Train and print."""
    use_profile(1)
    built = ready("digit-inverter", Place(device, "bfloat16", width), batch)

    def run() -> None:
        for _ in range(CALLS):
            built.call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        run()
        calls += CALLS
    print(calls * built.images / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    _, wanted, length, factor, images = sys.argv
    main(torch.device(wanted), float(length), float(factor), int(images))
