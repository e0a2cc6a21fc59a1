"""Parts on the product: tests marked gpu, every attack once, the demo in this process on both devices."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.accelerator.context import Context, Record
from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep, open_tracker
from orchestrator.sweep.records import TrialRecord

MARKED = "mark.gpu"
ROOT = Path(__file__).resolve().parents[2]
ATTACKS = Path(__file__).with_name("attacks.yaml")
DEMO = {
    "sweep": "{release.truncation: [1, 5], target.budget: [full, block2], seed: [0]}",
    "auxiliary.kind": "same-heldout",
}
TINY = {"evaluation.images": "16", "evaluation.grid": "4"} | {
    f"{part}.model.width": "0.02" for part in ("target", "judge", "attack")
}
COMPARED = {"inversion/mse_test": 0.05, "target/accuracy": 0.05, "judge/accuracy": 0.05}
"""Metric -> by how much it may differ between devices: an error as a share of itself, an accuracy as it is.

Data order and first weights are the same on both. Kernels add up in another order, and each device draws its
own dropout masks, so that trained networks differ by more than rounding.
"""
DROPOUT = (
    "dropout masks come from each device's own generator: networks differ by more than rounding, as those of "
    "two seeds do; a metric beyond what is tolerated asks for a second seed and proves no error"
)
ORDERED = "inversion/mse_test"


def tests(context: Context) -> Iterator[Record]:
    """Yield the outcome of the tests marked gpu, in a process of their own."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARKED in path.read_text()]
    # Without the project's settings and fixtures, which need packages that are not here.
    alone = ["-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rfE", *alone, *files]
    seconds = max(context.left, 1.0)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        yield {"code": f"none within {seconds:.0f} s"}
        return
    counts = re.findall(r"(\d+) (passed|failed|skipped|error|errors)", done.stdout)
    named = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
    yield {
        "code": done.returncode,
        **{name: int(count) for count, name in counts},
        "failed tests": named or "none",
    }


def ran(
    study: str, scale: str | None, changes: Mapping[str, str], device: str, folder: Path
) -> tuple[Sequence[TrialRecord], float]:
    """Run a study as `jobs.sweep --local --ship-later` does, without its report; return records, seconds."""
    overrides = [f"{path}={value}" for path, value in changes.items()]
    overrides.append(f"resources.gpus_per_worker={int(device == 'cuda')}")
    options = Options(study, overrides, scale, folder, None, None, None, ship_later=True)
    opened = Sweep(options, local=True)
    begun = time.perf_counter()
    with opened.started(open_tracker(opened), say=lambda line: None) as run:
        executor = run.next_executor()
        assert executor is not None
        executor.run(run.ledger)
        return run.ledger.records, time.perf_counter() - begun


def attacks(context: Context) -> Iterator[Record]:
    """Yield the end of a trial of every attack on the device."""
    changes = {"sweep": "[{attack: [{label: mia, name: mia, steps: 3}]}]"} if context.is_tiny else {}
    with tempfile.TemporaryDirectory() as name:
        records, seconds = ran(str(ATTACKS), None, changes, context.device.type, Path(name))
    for record in records:
        attack, task = record.params["attack.name"], record.params["evaluation.task"]
        cost = sum(value for key, value in record.costs.items() if key.endswith("wall_seconds"))
        error = record.error or "none"
        yield {"attack": attack, "task": task, "end": record.status, "wall seconds": cost, "error": error}
    yield {"attack": "all", "wall seconds": seconds}


def demo(context: Context) -> Iterator[Record]:
    """Yield the demo's smoke scale on the device beside the CPU: seconds, largest differences, same order."""
    changes = DEMO | (TINY if context.is_tiny else {})
    results: dict[str, Sequence[TrialRecord]] = {}
    for device in dict.fromkeys(["cpu", context.device.type]):
        with tempfile.TemporaryDirectory() as name:
            results[device], seconds = ran("demo", "smoke", changes, device, Path(name))
        ends = [record.status for record in results[device]]
        yield {
            "device": device,
            "trials": len(ends),
            "finished": ends.count("finished"),
            "wall seconds": seconds,
        }
    if context.device.type == "cpu":
        yield {"note": "no comparison: the CPU is the device"}
        return
    yield from compared(results["cpu"], results[context.device.type])
    yield {"note": DROPOUT}


def compared(first: Sequence[TrialRecord], second: Sequence[TrialRecord]) -> Iterator[Record]:
    """Yield of each metric how far two runs of the same trials are apart beside what is tolerated, and
    whether they put the trials in the same order, but for those that are as close as that."""
    by_name = {record.name: record.metrics for record in second}
    both = [(record.metrics, by_name[record.name]) for record in first]
    for metric, tolerated in COMPARED.items():
        apart = [abs(a[metric] - b[metric]) for a, b in both]
        if metric == ORDERED:
            apart = [one / a[metric] for one, (a, _) in zip(apart, both, strict=True)]
        yield {
            "metric": metric,
            "apart": max(apart),
            "tolerated": tolerated,
            "holds": max(apart) <= tolerated,
        }
    yield {"metric": ORDERED, "same order": same_order([(a[ORDERED], b[ORDERED]) for a, b in both])}


def same_order(values: Sequence[tuple[float, float]]) -> bool:
    """Return whether no two of the pairs are in another order in the second run than in the first, by more
    than is tolerated."""
    least = 1 + COMPARED[ORDERED]
    return not any(
        a > least * other_a and other_b > least * b for a, b in values for other_a, other_b in values
    )
