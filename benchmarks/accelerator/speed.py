"""Parts on speed: the matrix peak, images a second of every row beside it, iterations a second at 64x64."""

from collections.abc import Iterator

import torch

from benchmarks.accelerator.context import Context, Record
from benchmarks.rows import NETWORKS, SEARCHES, flops, ready

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BATCH = 128
LARGER = (256, 512, 1024, 2048)
ITERATED = ("hinge-prior", "gmi-iteration")
BATCHES = (60, 300)  # of TL-DMI's searches


def measured_peak(context: Context, precision: str) -> float:
    """Return the floating-point operations a second of a large matrix product, the better of two sizes."""
    best = 0.0
    for side in (256,) if context.is_tiny else (4096, 8192) if context.device.type == "cuda" else (2048,):
        first, second = (
            torch.randn(side, side, device=context.device).to(PRECISIONS[precision]) for _ in range(2)
        )
        best = max(best, 2 * side**3 / context.seconds(lambda a=first, b=second: a @ b))  # type: ignore[misc]
    return best


def peak(context: Context) -> Iterator[Record]:
    """Yield the measured peak of each precision; float32 is without TF32, as the project runs it."""
    for name, _ in context.in_time(PRECISIONS, 2.0):
        yield {"precision": name, "TFLOP/s": measured_peak(context, name) / 1e12}


def rows(context: Context) -> Iterator[Record]:
    """Yield images a second and share of the measured peak: each row at batch 128, then larger batches in
    bfloat16 while they pay, then float32."""
    peaks = {name: measured_peak(context, name) for name in PRECISIONS}
    for label, _ in context.in_time(NETWORKS, 3.0):
        yield at_batch(context, label, _precision(label, "bfloat16"), 8 if context.is_tiny else BATCH, peaks)
    if context.is_tiny:
        return
    trained = {label: None for label in NETWORKS if label not in SEARCHES}  # searches have their own batch
    for label, _ in context.in_time(trained, 8.0):
        yield from best_batch(context, label, peaks)
    for label, _ in context.in_time(trained, 5.0):
        yield at_batch(context, label, "float32", BATCH, peaks)


def _precision(label: str, wanted: str) -> str:
    return "float32" if label in SEARCHES else wanted


def at_batch(context: Context, label: str, precision: str, batch: int, peaks: Record) -> Record:
    """Return a row's record at a batch."""
    built = ready(label, context.place(precision), batch)
    work = flops(built)
    rate = built.images / context.seconds(built.call)
    return {
        "row": label,
        "precision": precision,
        "batch": batch,
        "images/s": rate,
        "MFLOP an image": work / 1e6,
        "share of peak": rate * work / peaks[precision],
    }


def best_batch(context: Context, label: str, peaks: Record) -> Iterator[Record]:
    """Yield a row's record at the batch with most images a second; a batch that outgrows the memory ends the
    search. Nothing where none was measured."""
    best: Record = {}
    for batch in LARGER:
        if context.left < 5.0:
            break
        try:
            record = at_batch(context, label, _precision(label, "bfloat16"), batch, peaks)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if best and record["images/s"] < best["images/s"]:
            break
        best = record
    if best:
        yield {**best, "note": "best of larger batches"}


def iterations(context: Context) -> Iterator[Record]:
    """Yield iterations a second of a prior's training and of GMI, with 60 and 300 images at 64x64."""
    for label in ITERATED:
        for batch in (4, 6) if context.is_tiny else BATCHES:
            if context.left < 3.0:
                return
            precision = _precision(label, "bfloat16")
            built = ready(label, context.place(precision), batch)
            rate = built.iterations / context.seconds(built.call)
            yield {"row": label, "precision": precision, "batch": batch, "iterations/s": rate}
