"""Benchmark: `python -m benchmarks.steps` prints, for each network, what a training step costs here.

The first line has the precision that `resources.precision: auto` takes for the width and device.
Columns: CPU milliseconds of a step (on a GPU: of its CUDA events) for our loop and for the plain one, their
ratio, operations of an image (a multiply-add is two), the share of the matrix peak that our loop reaches, and
the mean loss of both, which must agree. Medians of interleaved repeats, in the mode that sweeps run in. The
peak is that of a large square product in the row's precision, measured between the repeats; the plain loop is
float32 throughout. One narrow row with small batches: `--rows digit-inverter --width 0.0625 --batch 16`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.rows import NETWORKS, Place
from benchmarks.steps.rows import Loops, Setting, Take, loops
from orchestrator.attacks import latent
from orchestrator.runtime.matrix_units import units_here
from orchestrator.sweep.precision import faster
from orchestrator.training.kernels import use_profile

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCTS = 100
COLUMNS = ("ours ms", "plain ms", "ratio", "MFLOP/image", "of peak", "our loss", "plain loss")


@dataclass(frozen=True)
class Line:
    """What was measured of a row in one precision."""

    ours: float  # seconds of a step
    plain: float
    flop: float  # of a step
    images: int
    peak: float  # operations a second
    losses: tuple[float, float]  # means over the steps, ours and plain

    def cells(self) -> list[str]:
        """Return the line of the table, in the order of `COLUMNS`."""
        share = self.flop / self.ours / self.peak
        return [
            f"{self.ours * 1e3:.2f}",
            f"{self.plain * 1e3:.2f}",
            f"{self.plain / self.ours:.2f}",
            f"{self.flop / self.images / 1e6:.1f}",
            f"{share:.1%}",
            *(f"{loss:.5f}" for loss in self.losses),
        ]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return what some work takes: CPU seconds of the process, on a GPU those between two CUDA events."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3


def peak_seconds(side: int, precision: str, device: torch.device) -> float:
    """Return what a product of square matrices of this side takes: one on a processor, a mean of PRODUCTS on
    a GPU, where one ends before the next is asked for. Numbers are random: of equal ones a GPU is faster."""
    some, other = (torch.randn(side, side, device=device).to(PRECISIONS[precision]) for _ in range(2))
    count = 1 if device.type == "cpu" else PRODUCTS

    def multiply() -> None:
        for _ in range(count):
            _ = some @ other

    return seconds(multiply, device) / count


def measure(built: Loops, place: Place, arguments: argparse.Namespace) -> Line:
    """Take warm-up steps, then both loops and the peak in turns."""
    takes: dict[str, Take] = {"ours": built.ours, "plain": built.plain}
    spent: dict[str, list[float]] = {"ours": [], "plain": [], "peak": []}
    losses: dict[str, list[torch.Tensor]] = {"ours": [], "plain": []}
    peak_seconds(arguments.side, place.precision, place.device)
    number = dict.fromkeys(takes, 0)

    def steps(name: str, count: int) -> None:
        for _ in range(count):
            torch.manual_seed(number[name])  # of dropout, latents and augmentation
            losses[name].append(takes[name](number[name]))
            number[name] += 1

    for name in takes:
        steps(name, 1)
    for _ in range(arguments.repeats):
        for name in takes:
            taken = seconds(lambda name=name: steps(name, arguments.steps), place.device)  # type: ignore[misc]
            spent[name].append(taken / arguments.steps)
        spent["peak"].append(peak_seconds(arguments.side, place.precision, place.device))
    medians = {name: statistics.median(values) for name, values in spent.items()}
    means = [torch.stack(values).float().mean().item() for values in losses.values()]
    peak = 2.0 * arguments.side**3 / medians["peak"]
    return Line(medians["ours"], medians["plain"], built.flop, built.images, peak, (means[0], means[1]))


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="default: all"
    )
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=float, default=1.0, help="of every network; default: 1")
    parser.add_argument("--batch", type=int, help="images; default: the papers'")
    parser.add_argument("--steps", type=int, default=4, help="of each loop in each repeat")
    parser.add_argument("--repeats", type=int, default=5, help="of both loops and the peak, in turns")
    parser.add_argument("--side", type=int, default=2048, help="of the matrices that give the peak")
    return parser.parse_args(words)


def settings(row: str, arguments: argparse.Namespace) -> list[Setting]:
    """Return what a row is measured with, one for each of its precisions."""
    sizes, device = NETWORKS[row], torch.device(arguments.device)
    wanted = [name for name in arguments.precisions if name in sizes.precisions]
    batch = arguments.batch or sizes.batch
    return [Setting(sizes, Place(device, precision, arguments.width), batch) for precision in wanted]


def main(words: Sequence[str] | None = None) -> None:
    """Print what `auto` takes here, then measure and print a line for each row and precision."""
    arguments = parsed(words)
    units = units_here(torch.device(arguments.device).type)
    precision = faster([arguments.width], lambda: units.are_there)
    print(f"auto: {precision} (width {arguments.width:g}, {units.words})")
    use_profile(arguments.threads)
    latent.SEGMENT = 1  # a search's loop returns after each step
    print(f"{'row':17}{'precision':10}" + "".join(f"{column:>13}" for column in COLUMNS))
    for row in (name for name in NETWORKS if name in arguments.rows):
        for setting in settings(row, arguments):
            line = measure(loops(row, setting), setting.place, arguments)
            print(
                f"{row:17}{setting.place.precision:10}" + "".join(f"{cell:>13}" for cell in line.cells()),
                flush=True,
            )


if __name__ == "__main__":
    main()
