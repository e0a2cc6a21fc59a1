"""Spans modules: every attack in both tasks through all its stages: files, queries, repetition."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.config import Defense, TrialSpec
from orchestrator.datasets import Location, load
from orchestrator.metrics.names import measured
from orchestrator.stages.images import fitted_images
from orchestrator.stages.io import Inputs
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.training.world import World
from tests import tiny

JOINT = {"name": "joint", "model": tiny.DIGIT, "weight": 10.0}
MIA = {"name": "mia", "steps": 5, "patience": 5, "learning_rate": 0.1}
OPTIMIZATION = {"name": "optimization", "steps": 5, "variation_weight": 1e-3, "jitter": 1}
SURROGATE = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
OTHER = {**SURROGATE, "seed": 2}
LOSSES = {"adversarial": 0.01, "features": 0.1, "total_variation": 0.01, "surrogate": SURROGATE}
INVERTER = {"model": tiny.DIGIT, "recipe": tiny.RECIPE}
TASKS = ("reconstruction", "class-inference")
LATENT: dict[str, dict[str, Any]] = {
    "gmi": {"name": "gmi", "steps": 2},
    "kedmi": {"name": "kedmi", "steps": 2, "beside": 3},
    "ppa": {"name": "ppa", "steps": 2, "pool": 8, "views": 2},
    "plg-mi": {"name": "plg-mi", "steps": 2},
    "brepmi": {"name": "brepmi", "batch": 8, "budget": 80},
    "mirror": {"name": "mirror", "steps": 2, "pool": 8, "starts": 2},
    "mirror-black-box": {"name": "mirror-black-box", "pool": 8, "population": 4, "generations": 2},
    "vmi": {"name": "vmi", "steps": 2, "samples": 4, "couplings": 1, "width": 4},
    "lomma-g": {"name": "lomma-g", "steps": 2, "identity": {"students": {"one": SURROGATE, "two": OTHER}}},
    "lomma-k": {"name": "lomma-k", "steps": 2, "beside": 3, "identity": {"students": {"one": SURROGATE}}},
}
PRIOR = {"model": {"name": "gmi", "width": 0.02}, "epochs": 1}
CONDITIONAL = {"loss": "plg", "model": {"name": "plg", "width": 0.02}, "epochs": 1, "batch_size": 8}
TAUGHT: dict[str, dict[str, Any]] = {
    **{name: {**PRIOR, "loss": "kedmi"} for name in ("kedmi", "lomma-k")},
    "plg-mi": CONDITIONAL,
}
"""Attack -> its prior, which learns from the target."""
ATTACKS: dict[str, dict[str, Any]] = {
    "aligned": INVERTER,
    "unaligned": {**INVERTER, "align": False},
    "with losses": {**INVERTER, "losses": LOSSES},
    "learnable offset": {**INVERTER, "offset_learnable": True, "offset_learning_rate": 0.1},
    "logits": {**INVERTER, "encoding": "logit", "offset": "log-k"},
    "joint": JOINT,
    "joint log-ratios": {
        **JOINT,
        "encoding": "log-ratio",
        "offset": "log-k",
        "offset_learnable": True,
        "offset_learning_rate": 0.1,
    },
    "joint renormalised": {**JOINT, "reduction": "sum"},
    "mia": MIA,
    "optimization": OPTIMIZATION,
    **LATENT,
}
CASES = [
    (name, task)
    for name in ATTACKS
    for task in TASKS
    if task == "class-inference" or name not in ("mia", *LATENT)
]


def trial(name: str, task: str) -> TrialSpec:
    """Return a tiny trial of an attack in a task."""
    changes: dict[str, Any] = {"attack": ATTACKS[name], "evaluation.task": task, "release.truncation": 2}
    if name == "joint renormalised":
        changes["release.renormalised"] = True
    if name in LATENT:
        changes["prior"] = TAUGHT.get(name, PRIOR)
    return tiny.spec(changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the trials of this file share."""
    return tmp_path_factory.mktemp("scenarios")


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a second store: every stage of a trial that repeats is built twice, once in each."""
    return tmp_path_factory.mktemp("again")


def found(folder: Path, spec: TrialSpec, stage: str) -> Artifact:
    """Return what a stage of a finished trial left."""
    artifact = Artifacts(DirectoryBlobs(folder)).find(tiny.stages(spec)[stage].key)
    assert artifact is not None
    return artifact


def array(folder: Path, artifact: Artifact, name: str) -> np.ndarray:
    """Return an array of an artifact."""
    data = Artifacts(DirectoryBlobs(folder)).read(artifact, name)
    return np.load(io.BytesIO(data), allow_pickle=False)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_an_attack_goes_through_all_its_stages(name: str, task: str, folder: Path) -> None:
    spec = trial(name, task)
    metrics = tiny.run(spec, folder)
    bare = {re.sub(r"\.\w+/", "/", name) for name in metrics}  # without instances
    assert bare - {name for name in metrics if name.startswith("pretrain/")} <= set(measured())
    assert all(np.isfinite(value) for value in metrics.values())
    artifact = found(folder, spec, "evaluation")
    parts = ("class",) if task == "class-inference" else ("train", "test")
    names = ("grid_{}.png", "per_image_{}.npy", "reconstructions_{}.npy", "victims_{}.npy")
    assert sorted(artifact.files) == sorted(name.format(part) for name in names for part in parts)
    for part in parts:
        rows = array(folder, artifact, f"per_image_{part}.npy")
        assert len(rows) == (3 if part == "class" else 16)
        for field in (rows.dtype.names or ())[1:]:
            (metric,) = (one for one in artifact.metrics if one in _full_names(field, part))
            assert artifact.metrics[metric] == pytest.approx(rows[field].astype(float).mean(), abs=1e-6)


def _full_names(field: str, part: str) -> tuple[str, ...]:
    return (f"inversion/{field}_{part}", f"attack/{field}_{part}", f"class/{field}")


@pytest.mark.parametrize(("name", "task"), CASES)
def test_an_attack_repeats(name: str, task: str, folder: Path, again: Path) -> None:
    spec = trial(name, task)
    assert tiny.run(spec, again) == tiny.run(spec, folder)


SILENT: dict[str, dict[str, Any]] = {
    "last epoch": {"target.selection": "last", "attack.selection": "last"},
    "as released": {"target.selection": "test", "attack.selection": "victim-train"},
    "as released, learnable": {"attack.selection": "victim-train", "attack.offset_learnable": True},
    "per position": {"data.normalisation": "per-position"},
}


@pytest.mark.parametrize("name", SILENT)
def test_where_the_paper_is_silent_or_differs_from_its_code_a_setting_decides(
    name: str, folder: Path
) -> None:
    plain, other = tiny.run(tiny.spec(), folder), tiny.run(tiny.spec(SILENT[name]), folder)
    assert set(plain) == set(other)
    assert plain["inversion/mse_test"] != other["inversion/mse_test"] or name == "last epoch"  # one epoch


def test_choosing_an_epoch_on_the_private_images_queries_the_target_with_them(folder: Path) -> None:
    asked = tiny.run(tiny.spec(), folder)["attack/queries"]
    spec = tiny.spec(SILENT["as released"])
    inputs = Inputs(World(), lambda name: load(name, Location()), lambda role, name: b"")
    images = fitted_images(inputs, spec.data, spec.target)
    assert tiny.run(spec, folder)["attack/queries"] == asked + len(images)


ALONE: dict[str, Any] = {"target.pretrain": None, "target.budget": "full"}
BIDO = {"weight_x": 0.05, "weight_y": 0.5}
DEFENDED: dict[str, dict[str, Any]] = {
    "mid": {**ALONE, "target.defense": {"mid": {}}},
    "bido hsic": {**ALONE, "target.defense": {"bido": {"kind": "hsic", **BIDO}}},
    "bido coco": {**ALONE, "target.defense": {"bido": {"kind": "coco", **BIDO}}},
    "smoothing": {**ALONE, "target.defense": {"smoothing": {"alpha": -0.05}}},
    "dp": {**ALONE, "target.defense": {"dp": {}}},
    "mid and smoothing": {**ALONE, "target.defense": {"mid": {}, "smoothing": {}}},
    "budget and bido": {"target.defense": {"bido": BIDO}},
    "budget, loft and erasing": {"target.defense": {"loft": {"rank": 2}, "erasing": {}}},
    "fixed budget and dp": {"target.freeze": "weights+statistics", "target.defense": {"dp": {}}},
}
WHITE_BOX = {"mia": "class-inference", "optimization": "reconstruction"}
AGAINST = [
    *((name, "aligned", task) for name in DEFENDED for task in TASKS),
    *(("mid", attack, task) for attack, task in WHITE_BOX.items()),  # noise in every answer and gradient
    *(("fixed budget and dp", attack, task) for attack, task in WHITE_BOX.items()),
]


def defended(name: str, attack: str, task: str) -> TrialSpec:
    """Return a tiny trial of an attack on a defended target."""
    changes = {"attack": ATTACKS[attack], "evaluation.task": task, **DEFENDED[name]}
    return tiny.spec({**changes, "release.truncation": 2})


@pytest.mark.parametrize(("name", "attack", "task"), AGAINST)
def test_a_defended_target_goes_through_all_stages_and_repeats(
    name: str, attack: str, task: str, folder: Path, again: Path
) -> None:
    spec = defended(name, attack, task)
    metrics = tiny.run(spec, folder)
    assert set(metrics) - {name for name in metrics if name.startswith("pretrain/")} <= set(measured())
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("target/epsilon" in metrics) is (spec.target.defense.dp is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)  # the global generator changes no result
        tiny.run(spec, again)
    for stage in tiny.stages(spec):
        first, second = found(folder, spec, stage), found(again, spec, stage)
        assert [(file, one.sha256) for file, one in first.files.items()] == [
            (file, one.sha256) for file, one in second.files.items()
        ]
        assert first.metrics == second.metrics


@pytest.mark.parametrize("name", DEFENDED)
def test_a_defense_changes_the_target_and_what_follows_from_it(name: str, folder: Path) -> None:
    spec = defended(name, "aligned", "reconstruction")
    plain = spec.model_copy(update={"target": spec.target.model_copy(update={"defense": Defense()})})
    before, after = tiny.stages(plain), tiny.stages(spec)
    same = {stage for stage in before if before[stage].key == after[stage].key}
    assert same == {"pretrain", "judge"} & set(before)
    assert (
        len({tiny.stages(defended(one, "aligned", "reconstruction"))["target"].key for one in DEFENDED}) == 9
    )
    for one in (plain, spec):
        tiny.run(one, folder)
    weights = [found(folder, one, "target").files["model.safetensors"].sha256 for one in (plain, spec)]
    assert weights[0] != weights[1]


PROFILED: dict[str, dict[str, Any]] = {
    "inverter": {"attack": INVERTER},
    "joint": {"attack": JOINT},
    "mia": {"attack": MIA, "evaluation.task": "class-inference"},
    "kedmi": {"attack": LATENT["kedmi"], "prior": TAUGHT["kedmi"], "evaluation.task": "class-inference"},
}


@pytest.mark.parametrize("name", PROFILED)
def test_the_fisher_analysis_of_an_attack(name: str, folder: Path, again: Path) -> None:
    changes = {**PROFILED[name], "release.truncation": None}
    fisher = {"images": 6, "distances": ["l2", "l1"], "iterations": [1, 3]}
    plain, spec = tiny.spec(changes), tiny.spec({**changes, "evaluation.fisher": fisher})
    metrics = tiny.run(spec, folder)
    shares = {f"fisher/early_share_{what}" for what in ("classification", "l2", "l1")}
    assert {one for one in metrics if one.startswith("fisher/")} == shares
    assert all(0 <= metrics[one] <= 1 for one in shares)
    artifact = found(folder, spec, "fisher")
    assert sorted(artifact.files) == ["fisher.csv", "fisher.png"]
    assert artifact.cost["images_seen"] == 6
    others = {stage: one.key for stage, one in tiny.stages(spec).items() if stage != "fisher"}
    assert others == {stage: one.key for stage, one in tiny.stages(plain).items()}
    assert tiny.run(spec, again) == metrics
    repeated = found(again, spec, "fisher").files
    assert {file: one.sha256 for file, one in repeated.items()} == {
        file: one.sha256 for file, one in artifact.files.items()
    }


@pytest.mark.parametrize(
    ("attack", "task"), [(name, task) for name, task in CASES if name in ("aligned", *WHITE_BOX)]
)
def test_a_snapshot_is_attacked_as_it_was(attack: str, task: str, folder: Path, again: Path) -> None:
    kept = {
        "attack": ATTACKS[attack],
        "evaluation.task": task,
        "target.recipe": {**tiny.RECIPE, "epochs": 2},
        "target.snapshots": [1, 2],
        "target.selection": "last",
    }
    early, late = (tiny.spec({**kept, "target.snapshot": epoch}) for epoch in (1, 2))
    last = tiny.spec(kept)
    metrics = {
        name: tiny.run(one, folder) for name, one in {"early": early, "late": late, "last": last}.items()
    }
    assert len({tiny.stages(one)["target"].key for one in (early, late, last)}) == 1
    assert metrics["late"] == metrics["last"]  # other keys, the same weights
    assert metrics["early"]["target/accuracy"] != metrics["late"]["target/accuracy"]
    assert found(folder, early, "snapshot").metrics["target/accuracy"] == metrics["early"]["target/accuracy"]
    assert found(folder, early, "evaluation").inputs["target"] == tiny.stages(early)["snapshot"].key
    assert tiny.run(early, again) == metrics["early"]
