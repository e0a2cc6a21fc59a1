"""A small sweep for clusters with trainings of its own, its run in this process, and its files in a store."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestrator.store.artifacts import Artifacts

ROOT = Path(__file__).resolve().parents[1]

STUDY = """
study: {name}
base:
  data: {{dataset: digits, split: even, class_pool: 5}}
  target:
    classes: 3
    model: {{name: ami-digit, width: 0.0625}}
    pretrain: {{recipe: {{epochs: {short}, batch_size: 32, learning_rate: 0.001}}}}
    recipe: {{epochs: {epochs}, batch_size: 32, learning_rate: 0.001}}
  auxiliary: {{size: 100}}
  attack:
    model: {{name: ami-digit, width: 0.0625}}
    recipe: {{epochs: {attack_epochs}, batch_size: 16, learning_rate: 0.003}}
  judge:
    model: {{name: ami-digit, width: 0.0625}}
    recipe: {{epochs: {short}, batch_size: 32, learning_rate: 0.001}}
sweep:
  release.truncation: [1, 3]
  auxiliary.kind: [same-heldout, distinct]
  target.budget: [full, block2]
"""
TRIALS = 8


def write_study(
    folder: Path, name: str, *, short: int = 2, epochs: int = 2, attack_epochs: int = 2, more: str = ""
) -> Path:
    """Write the study, `more` after its axes; `short` are the epochs of public network and judge."""
    path = folder / f"{name}.yaml"
    text = STUDY.format(name=name, short=short, epochs=epochs, attack_epochs=attack_epochs)
    path.write_text(text + more)
    return path


def command(study: Path, out: Path, *options: str) -> list[str]:
    """Return the command that sweeps a study."""
    return [sys.executable, "-m", "jobs.sweep", str(study), "--out", str(out), *options]


def run(words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's folder."""
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=380, check=False)


def run_locally(study: Path, out: Path, *options: str) -> bytes:
    """Run the study in one process, without Ray; return its table."""
    done = run(command(study, out, "--local", "--ship-later", *options), dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return table(out, study)


def table(out: Path, study: Path) -> bytes:
    """Return the results that the last command left in its folder; overrides have folders of their own."""
    written = out.glob(f"{study.stem}*/results.csv")
    return max(written, key=lambda file: file.stat().st_mtime_ns).read_bytes()


def events(store: Artifacts, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind in all journals of a store."""
    names = [name for name in store.blobs.names("sweeps/") if "/journal/" in name]
    lines = [line for name in names for line in (store.blobs.get(name) or b"").splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]
