"""A module in a notebook, attacked and judged: `inv.evaluate` stages it with its images and runs a study.

It is the shipped study `given-program` with one attack, so its stages, store, report and MLflow are those of
every sweep, and what is stored is not computed again.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from orchestrator.api.arrays import GIVEN, as_array, stage_images
from orchestrator.api.options import DATA, RUNS
from orchestrator.api.study import Say, Study
from orchestrator.config.attack_spec import AttackSpec
from orchestrator.config.attacks import ATTACK_SPECS, Attack
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.load import faults
from orchestrator.config.program import Outputs
from orchestrator.config.study import StudyError
from orchestrator.store.directory import withhold

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.api.modules import Prepared, Scaling
    from orchestrator.api.results import Results

STUDY, NAME = "given-program", "evaluate"
PHOTOS = "photo-patches"
"""The adversary's images where none are given: unrelated ones, bundled."""

SIDES = {32: "ami-digit", 64: "ami-face"}
"""Sides that inverters and priors have -> network of the inverter and the judge."""

ORDERED = {"split": GIVEN, "class_order": "staged", "class_pool": None}
"""Of the private images: `private` is trained on, and class i is output i."""

TASKS = ("reconstruction", "class-inference")
"""What an attack does, the first that it can."""

OBJECTIVES = dict(zip(TASKS, ("inversion/mse_test", "class/judge_top1"), strict=True))
METRICS = {
    "reconstruction": ["target/accuracy", "inversion/mse_test", "attack/accuracy_top1_test"],
    "class-inference": ["target/accuracy", "class/judge_top1", "class/target_top1"],
}
_ATTACK: TypeAdapter[AttackSpec] = TypeAdapter(Attack)
Labelled = tuple[Any, Any]
"""Images (N, C, S, S), uint8 or floats in [0, 1], and the class of each, integers 0..k-1 (N,)."""


def evaluate(  # noqa: PLR0913 - what is known of a module, what is done with it, where
    module: "nn.Module",
    *,
    private: Labelled,
    held_out: Labelled,
    attack: str | Mapping[str, Any] = "inverter",
    auxiliary: Any = None,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    scaling: "Scaling" = "unit",
    outputs: Outputs = "logits",
    image_size: int | None = None,
    class_names: Iterable[Any] | None = None,
    local: bool = True,
    data: str | Path | None = None,
    store: str | Path | None = None,
    out: str | Path = RUNS,
    tracking_uri: str | None = None,
    ship_later: bool = False,
    say: Say | None = None,
) -> "Results":
    """Attack a classifier of this process, judge what comes out, and return the results of that study.

    `private`: the images that the module was trained on, with their classes; `held_out`: others of the same
    classes that it was not trained on. Output i of the module is of class i, which `class_names` may name.
    `attack`: a name of `config.ATTACK_SPECS`, or its settings with the name, run once for each of `seeds`.
    `auxiliary`: the adversary's own images, without classes, which train an inverter or a prior; None:
    bundled photographs of other things. `settings`: paths of the study with their values, as of
    `Study.with_`, over the defaults: the task that the attack does, images of 64x64 (where `private` is
    smaller, 32x32), a judge trained on `private`, labels alone released to an attack that reads labels.

    `scaling`, `outputs` and `image_size` (None: that of the private images) are those of `stage_module`; the
    others are those of `Study.run`, but that images and module are staged in `out`/data where neither `data`
    nor INVERSION_DATA names a location.

    Raise `Refused` or `StudyError` for a module in training mode or without the gradients that the attack
    reads, for labels that are not the module's classes, and for what no study can have.
    """
    images, labels, parts = _joined(private, held_out)
    channels, side = int(images.shape[1]), int(image_size or images.shape[-1])
    own_side = max((one for one in SIDES if one <= images.shape[-1]), default=min(SIDES))
    spec, given = _attack(attack, own_side)
    if auxiliary is not None and not (spec.has_images or spec.needs_prior):
        rule = f"is given, and attack={spec.name} has neither images nor a prior of its own"
        raise Refused("auxiliary", NO_VALUE, rule, "leave it out or choose another attack")
    names = None if class_names is None else tuple(map(str, class_names))
    facts = {"image_size": side, "channels": channels, "scaling": scaling, "outputs": outputs}
    prepared = _prepared(module, spec, facts, names)
    k = prepared.program.classes
    _check_classes(labels, k)
    data = _location(data, Path(out))
    staged = stage_images(images, labels, data=data, name="private", class_names=names, parts=parts)
    others = None if auxiliary is None else stage_images(auxiliary, data=data, name="auxiliary")
    wanted = dict(settings or {})
    task = str(wanted.get("evaluation.task"))
    defaults = {
        **_reported(task if task in TASKS else min(spec.tasks, key=TASKS.index)),
        "data": {"dataset": staged, "image_size": own_side, "channels": channels, **ORDERED},
        "target": {"classes": k, "program": prepared.stage(data), "minimum_accuracy": 0.0},
        "release.labels_only": spec.access == "labels",
        **_images_of(spec, others),
        "attack": given,
        "judge": {"model": {"name": SIDES[own_side]}},
        "sweep": [{"attack.seed": [int(seed) for seed in seeds]}],  # a list replaces the study's own axes
    }
    study = Study.load(STUDY).with_(defaults).with_(wanted)
    return study.run(
        local=local,
        data=data,
        store=store,
        out=out,
        tracking_uri=tracking_uri,
        ship_later=ship_later,
        say=say,
    )


def _location(data: str | Path | None, out: Path) -> str | Path:
    """Return where module and images are staged: as given, else in `out`, which is kept out of git."""
    given = data or os.environ.get(DATA)
    if given:
        return given
    withhold(out)
    return out / "data"


def _prepared(
    module: "nn.Module", spec: AttackSpec, facts: Mapping[str, Any], names: Sequence[str] | None
) -> "Prepared":
    """Return the module exported; raise `Refused` if it cannot be, or gives an attack no gradients."""
    from orchestrator.api.modules import check_gradients, prepared  # here, as they need torch

    made = prepared(module, facts, names)
    if spec.access == "gradients":
        side = facts["image_size"]
        check_gradients(module, (facts["channels"], side, side), spec.name)
    return made


def _attack(attack: str | Mapping[str, Any], side: int) -> tuple[AttackSpec, dict[str, Any]]:
    """Return an attack as its spec and as settings, with the network of an inverter for images of a side."""
    given = {"name": attack} if isinstance(attack, str) else {"name": "inverter", **attack}
    if given["name"] not in ATTACK_SPECS:
        raise Refused("attack", given["name"], "is unknown", f"choose one of {', '.join(ATTACK_SPECS)}")
    if given["name"] == "inverter":
        given = {"model": {"name": SIDES[side]}, **given}
    try:
        return _ATTACK.validate_python(given), given
    except ValidationError as error:
        raise StudyError(*(one.under("attack") for one in faults(error, "attack"))) from None


def _images_of(spec: AttackSpec, others: str | None) -> dict[str, Any]:
    """Return the adversary's images and its prior; `others` is the set that was given."""
    prior, auxiliary = None, {"kind": "same-heldout", "dataset": None}  # the defaults, which nothing reads
    if spec.needs_prior:
        prior = {"dataset": others or PHOTOS}
        prior |= {} if "hinge" in spec.prior_losses else {"loss": spec.prior_losses[0]}
    if spec.has_images:
        auxiliary = {"kind": "generic" if others else "distinct", "dataset": others or PHOTOS}
    return {"prior": prior, "auxiliary": auxiliary}


def _reported(task: str) -> dict[str, Any]:
    """Return what a study of a task is called, searches and reports."""
    part = "class" if task == "class-inference" else "test"
    report = {"metrics": METRICS[task], "parts": [part], "rows": [], "where": {}, "orderings": []}
    objectives = {OBJECTIVES[task]: "minimize"}
    return {"study": NAME, "evaluation.task": task, "search": {"objectives": objectives}, "report": report}


def _joined(private: Labelled, held_out: Labelled) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, labels and parts of both; raise `Refused` if they are no pairs or of other sizes."""
    pairs = []
    for field, pair in (("private", private), ("held_out", held_out)):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            rule = "must be a pair: images (N, C, S, S) and the class of each"
            raise Refused(field, NO_VALUE, rule, f"give {field}=(images, labels)")
        images, labels = (as_array(one) for one in pair)
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            rule = f"has images {images.shape} and labels {labels.shape}, not (N, C, S, S) and (N,)"
            raise Refused(field, NO_VALUE, rule, "give one label for each image")
        pairs.append((images, labels))
    (images, labels), (others, other_labels) = pairs
    if images.shape[1:] != others.shape[1:] or images.dtype != others.dtype:
        rule = f"has images {others.dtype} {others.shape[1:]}, private has {images.dtype} {images.shape[1:]}"
        raise Refused("held_out", NO_VALUE, rule, "prepare both alike")
    parts = ["train"] * len(images) + ["evaluation"] * len(others)
    return np.concatenate([images, others]), np.concatenate([labels, other_labels]), parts


def _check_classes(labels: np.ndarray, num_classes: int) -> None:
    told = np.unique(labels)
    if labels.dtype.kind not in "iu" or not np.array_equal(told, np.arange(num_classes)):
        shown = f"{told[0]}..{told[-1]}, {len(told)} of them" if len(told) else "none"
        rule = f"has the classes {shown}, and the module has {num_classes} outputs"
        way_out = f"give images of each class 0..{num_classes - 1}, numbered as the outputs"
        raise Refused("private", NO_VALUE, rule, way_out)
