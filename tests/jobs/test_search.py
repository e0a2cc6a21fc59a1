"""Spans modules: a search whose process is killed asks the same points when its command runs again."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.config.load import read_study
from orchestrator.datasets import Location
from orchestrator.runtime.optuna import OptunaPoints
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import ABSENT, Point
from orchestrator.sweep.validation import Preflight
from tests import tiny
from tests.sweeps import ROOT, command, events, run

WEIGHT = "target.defense.bido.weight_x"
AXES: dict[str, Any] = {
    "target.defense": [{"label": "none"}, {"label": "BiDO", "bido": {}}],
    WEIGHT: {"when": {"target.defense": "BiDO"}, "low": 0.01, "high": 1.0, "log": True},
}
OBJECTIVES = {"attack/accuracy_top1_test": "minimize", "target/accuracy": "maximize"}
SEARCH = {
    "algorithm": "optuna",
    "sampler": "nsga-ii",
    "population": 2,
    "samples": 6,
    "batch": 2,
    "objectives": OBJECTIVES,
    "seed": 1,
}


def kill_in_the_third_batch(words: list[str], store: Artifacts) -> None:
    """Start a sweep and kill -9 its process once two batches were told."""
    process = subprocess.Popen(words, cwd=ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL)
    try:
        while len(events(store, "told")) < 2 or len(events(store, "planned")) < 3:
            assert process.poll() is None, "the sweep ended before it could be killed"
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_killed_search_asks_the_same_points(tmp_path: Path) -> None:
    study, out = tiny.write(tmp_path / "tiny.yaml", AXES, search=SEARCH), tmp_path / "out"
    words = [*command(study, out, "--local", "--ship-later")]
    store = Artifacts(DirectoryBlobs(out / "store"))
    kill_in_the_third_batch(words, store)
    before = [event["trials"] for event in events(store, "planned")]

    done = run(words, dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No trial is called best, as several objectives are asked" in done.stdout + (
        out / "tiny" / "note.md"
    ).read_text(encoding="utf-8")
    after = [event["trials"] for event in events(store, "planned")][len(before) :]
    assert after[: len(before)] == before
    assert len(after) == 3

    table = pd.read_csv(out / "tiny" / "results.csv")
    results = [dict(zip(OBJECTIVES, own, strict=True)) for own in table[list(OBJECTIVES)].to_numpy().tolist()]
    undisturbed = OptunaPoints(read_study(study), Preflight(Location()))
    for asked in after:  # the same search, told the same without a kill
        batch = undisturbed.ask()
        assert [point.key for point in batch] == asked
        told: list[tuple[Point, Mapping[str, float] | None]] = [(one, results[one.index]) for one in batch]
        undisturbed.tell(told)
    weights, defenses = table[WEIGHT].astype(str).tolist(), table["defense"].tolist()
    assert all((weight == ABSENT) == (own == "none") for weight, own in zip(weights, defenses, strict=True))
    assert {"none", "BiDO"} == set(defenses)
