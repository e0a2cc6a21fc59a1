"""Adversary: what it had beyond the release: private images of the target, scores that are not published.

Both follow from a trial's spec, so that no stage records them and stored trials are marked too. A trial's
record carries them to the report (`report/held.py`) and to MLflow.
"""

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.config import TrialSpec
from orchestrator.config.base import Refused
from orchestrator.datasets.classes import PRIVATE_PARTS
from orchestrator.metrics.names import CLASS, PARTS
from orchestrator.sweep.records import TrialRecord

HELD = "held"
"""Column and tag: the parts, train, test or class, whose private images the adversary held."""

READ = {"train": "train", "test": "evaluation", CLASS: "train"}
"""Part in a metric's name -> part of the private classes that it is measured on. An image of a class is set
beside the target's training images of that class."""

SHARING = ("generic", "augmented")
"""Auxiliary kinds of which `auxiliary.overlap` may leave private classes in the other data set."""

QUERIES, BEYOND = "attack/queries", "attack/queries_beyond_release"
"""Metrics: all queries of an attack, and those that were answered with more than the service releases."""


def is_held(spec: TrialSpec, part: str) -> bool:
    """Return whether the adversary held the very images that the metrics of a part read: train, test or
    class.

    Held is what an inverter was trained on or its epoch chosen by, all of them or, with `auxiliary.size`,
    some. A search without images of its own holds none.
    """
    return READ[part] in set(_held(spec))


def held_parts(spec: TrialSpec) -> tuple[str, ...]:
    """Return the parts that the trial measures and the adversary held: some of train and test, or class."""
    measured = (CLASS,) if spec.evaluation.task == "class-inference" else PARTS[::-1]
    return tuple(part for part in measured if is_held(spec, part))


def held_private_parts(spec: TrialSpec) -> tuple[str, ...]:
    """Return the parts of the private classes of which the adversary has images."""
    return tuple(dict.fromkeys(_held(spec)))


def check_judges(spec: TrialSpec) -> None:
    """Raise `Refused` if a judge is to be trained on images of private classes that the adversary holds, so
    that it would know what was given away and not what leaked. The target's own images are admitted."""
    auxiliary = spec.auxiliary
    may_share = auxiliary.kind in SHARING and auxiliary.overlap == "allow" and spec.attack.has_images
    for field, judge in spec.every_judge.items():
        if judge.images != "train" and judge.images in set(_held(spec)):
            rule = f"is what the adversary holds with auxiliary.kind={auxiliary.kind}"
            way_out = "use train or another auxiliary.kind"
            raise Refused(f"{field}.images", judge.images, rule, way_out)
        if judge.images == "auxiliary" and may_share:
            rule = "promises images that the adversary has not, but auxiliary.overlap=allow admits them"
            raise Refused(f"{field}.images", judge.images, rule, "use train, or auxiliary.overlap=remove")


def _held(spec: TrialSpec) -> Iterator[str]:
    """Yield the parts of the private classes of which the adversary has images."""
    attack = spec.attack
    if attack.has_images and spec.auxiliary.kind in PRIVATE_PARTS:
        yield PRIVATE_PARTS[spec.auxiliary.kind]
    if attack.trains_target or attack.selects_on_target:
        yield "train"
    if attack.trains_target and spec.target.selection == "test":
        yield "evaluation"  # they choose the epoch of F and G


def queries_beyond_release(spec: TrialSpec, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metric `BEYOND` from those of a trial, by name; nothing for an attack that queries nothing.

    An inverter that is not aligned (AMI's TB baseline) is trained on all scores of its images, although the
    service publishes m of them: each of its queries counts.
    """
    if not spec.attack.queries_target or QUERIES not in metrics:
        return {}
    _, answered = spec.attack.made_from(spec.release)
    return {BEYOND: metrics[QUERIES] if answered != spec.release else 0.0}


def held_words(parts: Iterable[str]) -> str:
    """Return parts as tables write them, each once: `train, test`."""
    held = set(parts)
    return ", ".join(part for part in (*PARTS[::-1], CLASS) if part in held)


def trial_note(record: TrialRecord) -> str:
    """Return what the adversary of a trial had, in a sentence or two; empty where it had nothing beyond the
    release."""
    parts, queries = held_words(record.held), int(record.metrics.get(BEYOND, 0))
    held = f"The adversary held the private images that metrics of the part {parts} read."
    asked = f"{queries} queries were answered with more than the service releases."
    return " ".join(words for words, had in ((held, parts), (asked, queries)) if had)
