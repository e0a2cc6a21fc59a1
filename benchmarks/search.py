"""Benchmark: two-objective search beside random draws of equal size, on the bundled digits.

`python -m benchmarks.search` searches BiDO's two weights and the frozen-layer budget for much accuracy and
little leakage, by each sampler from each seed, and prints the hypervolume of what each found, beside the
difference from random draws of the same seed, with its 95 % interval (Student's t over seeds). All searches
share a store, so that a setting is trained once. The trainings' own seed is one: intervals are over searches.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import t

from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep
from orchestrator.runtime.hypervolume import hypervolume
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import JournalListener
from orchestrator.sweep.requests import Size

OBJECTIVES = {"attack/accuracy_top1_test": "minimize", "target/accuracy": "maximize"}
REFERENCE = {"attack/accuracy_top1_test": 1.0, "target/accuracy": 0.2}
"""Every reconstruction is recognised; the accuracy of always naming one of five classes."""

RECIPE = {"epochs": 4, "batch_size": 32, "learning_rate": 0.002}
DIGIT, JUDGE = ({"name": "ami-digit", "width": width} for width in (0.03125, 0.0625))
BIDO = {"target.defense": "BiDO"}
STUDY: dict[str, Any] = {
    "study": "search-benchmark",
    "base": {
        "data": {"dataset": "digits", "split": "even", "class_pool": 5},
        "target": {"classes": 5, "model": DIGIT, "pretrain": {"recipe": RECIPE}, "recipe": RECIPE},
        "auxiliary": {"kind": "same-heldout", "size": 150},
        "attack": {
            "model": DIGIT,
            "offset": 10,
            "recipe": {"epochs": 5, "batch_size": 16, "learning_rate": 0.003},
        },
        "judge": {"model": JUDGE, "recipe": RECIPE},
        "evaluation": {"images": 64},
    },
    "sweep": {
        "target.budget": ["full", "block1", "block2", "block3"],
        "target.defense": [{"label": "none"}, {"label": "BiDO", "bido": {}}],
        "target.defense.bido.weight_x": {"when": BIDO, "low": 0.01, "high": 10.0, "log": True},
        "target.defense.bido.weight_y": {"when": BIDO, "low": 0.01, "high": 10.0, "log": True},
    },
}
SEARCHES: Mapping[str, Mapping[str, object]] = {  # the first is what others are compared with
    "random": {"algorithm": "random"},
    "TPE": {"algorithm": "optuna", "sampler": "tpe"},
    "NSGA-II": {"algorithm": "optuna", "sampler": "nsga-ii"},
}


def found(name: str, seed: int, folder: Path, arguments: argparse.Namespace) -> list[list[float]]:
    """Run one search; return the objectives of its trials, (trials, 2), in the order asked."""
    search = {**SEARCHES[name], "samples": arguments.trials, "seed": seed, "objectives": OBJECTIVES}
    if search["algorithm"] == "optuna":
        search["batch"] = arguments.batch
    if search.get("sampler") == "nsga-ii":
        search["population"] = arguments.population
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "search": search}, sort_keys=False), encoding="utf-8")
    store = str(folder / "store")
    opened = Sweep(Options(str(path), (), None, folder, store, None, None, ship_later=True), local=True)
    with Journal(opened.store.blobs, opened.study.key) as journal:
        ledger = opened.ledger(journal, [JournalListener(journal)])
        with opened.executor(journal, Size(), print) as executor:
            executor.run(ledger)
    failed = [record.error for record in ledger.records if record.status != "finished"]
    if failed:
        raise RuntimeError(f"{len(failed)} trials failed, the first with: {failed[0]}")
    ended = sorted(ledger.records, key=lambda record: record.index)
    return [[record.metrics[metric] for metric in OBJECTIVES] for record in ended]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the mean of differences and half of its 95 % interval, NaN for a single one."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, float("nan")
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return mean, float(t.ppf(0.975, len(differences) - 1)) * error


def verdict(mean: float, half: float) -> str:
    """Return in words who wins."""
    if mean - half > 0:
        return "better than random"
    return "random wins" if mean + half < 0 else "no difference shown"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="in each search; default: 20")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=5, help="points asked at once")
    parser.add_argument("--population", type=int, default=5, help="of NSGA-II")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES)[1:])
    arguments = parser.parse_args()
    volumes: dict[str, list[float]] = {name: [] for name in ("random", *arguments.searches)}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            for name in volumes:
                with redirect_stdout(StringIO()):
                    values = found(name, seed, Path(folder), arguments)
                volumes[name].append(hypervolume(values, OBJECTIVES, REFERENCE))
                print(f"seed {seed} {name}: {volumes[name][-1]:.4f}", file=sys.stderr)
    print(f"hypervolume after {arguments.trials} trials, beyond {REFERENCE}")
    print(f"{'search':10} {'mean':>8} {'- random':>10} {'+-':>8}  {'verdict':20} all")
    for name, own in volumes.items():
        every = " ".join(f"{one:.4f}" for one in own)
        mean, half = interval([one - other for one, other in zip(own, volumes["random"], strict=True)])
        shown = ("", "", "") if name == "random" else (f"{mean:+.4f}", f"{half:.4f}", verdict(mean, half))
        print(f"{name:10} {statistics.fmean(own):8.4f} {shown[0]:>10} {shown[1]:>8}  {shown[2]:20} {every}")


if __name__ == "__main__":
    main()
