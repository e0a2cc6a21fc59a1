"""The smallest study that goes through every stage: bundled digits, the narrowest networks, one epoch."""

import json
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config import TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.config.study import Study
from orchestrator.datasets import Location, verify
from orchestrator.metrics.skill import derived
from orchestrator.stages import runner
from orchestrator.stages.graph import Profile, Stage, dataset_names, plan
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World

DIGIT = {"name": "ami-digit", "width": 0.01}  # four channels in every layer
RECIPE = {"epochs": 1, "batch_size": 64, "learning_rate": 0.003}
DIVERGING = {"epochs": 1, "batch_size": 2, "optimizer": "sgd", "learning_rate": 10.0, "weight_decay": 10.0}
"""A recipe under which a stage fails: every step makes the weights a hundred times larger."""

# No seed is a default or another's: a stage that forgot its own would leave what it leaves with the default.
BASE: dict[str, Any] = {
    "data": {"dataset": "digits", "class_pool": 5, "class_seed": 1},
    "target": {
        "classes": 3,
        "model": DIGIT,
        "pretrain": {"recipe": RECIPE, "seed": 2},
        "budget": "block1",
        "recipe": RECIPE,
        "seed": 3,
    },
    "release": {"truncation": 1},
    "auxiliary": {"kind": "same-heldout", "size": 64, "seed": 4},
    "attack": {"model": DIGIT, "recipe": RECIPE, "seed": 5},
    "judge": {"model": DIGIT, "recipe": RECIPE, "seed": 42},
    "evaluation": {"images": 16, "grid": 4, "seed": 7},
}
PROFILE = Profile()


def base(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the base spec with dotted paths changed."""
    raw = _copied(BASE)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        part = raw
        for parent in parents:
            part = part[parent]
        part[last] = _copied(value)  # a later path may change a part of it
    return raw


def _copied(value: Any) -> Any:
    """Return a copy in which no two parts are the same object."""
    return json.loads(json.dumps(value))


def in_order(value: Any) -> str:
    """Return a parameter as text for a test's name: a set's order is another in every process."""
    return str(sorted(value)) if isinstance(value, set | frozenset) else str(value)


def spec(changes: dict[str, Any] | None = None) -> TrialSpec:
    """Return the tiny trial with dotted paths changed."""
    return TrialSpec.model_validate(base(changes))


def study(sweep: Any, changes: dict[str, Any] | None = None, **sections: Any) -> Study:
    """Return a study over the tiny base."""
    return Study.model_validate({"study": "tiny", "base": base(changes), "sweep": sweep, **sections})


def write(path: Path, sweep: Any, changes: dict[str, Any] | None = None, **sections: Any) -> Path:
    """Write a study over the tiny base as YAML and return its path."""
    path.write_text(
        yaml.safe_dump({"study": "tiny", "base": base(changes), "sweep": sweep, **sections}), encoding="utf-8"
    )
    return path


def stages(trial: TrialSpec) -> dict[str, Stage]:
    """Return the planned stages of a trial over built-in data sets."""
    digests = {name: verify(name, Location()).digest for name in dataset_names(trial).values()}
    return plan(normalise(trial), digests, PROFILE)


def run(trial: TrialSpec, folder: Path) -> dict[str, float]:
    """Build every stage that is not stored in `folder` yet; return all metrics of the trial."""
    use_profile(PROFILE.threads)
    store = Artifacts(DirectoryBlobs(folder))
    metrics: dict[str, float] = {}
    for stage in stages(trial).values():
        if store.find(stage.key) is None:
            runner.run(stage, World(), store, Location())
        artifact = store.find(stage.key)
        assert artifact is not None
        metrics |= {stage.metric(name): value for name, value in artifact.metrics.items()}
    return metrics | derived(metrics)
