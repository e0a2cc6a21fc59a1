"""What the adversary had beyond the release: held images against the images themselves, queries by hand."""

from typing import Any

import pytest

from orchestrator.config import Auxiliary, TrialSpec
from orchestrator.config.base import Refused
from orchestrator.datasets import Location, load
from orchestrator.datasets.classes import auxiliary_dataset_name
from orchestrator.datasets.selection import ImageSet, auxiliary_images, target_images
from orchestrator.metrics.names import PARTS
from orchestrator.sweep.adversary import (
    BEYOND,
    QUERIES,
    READ,
    check_judges,
    held_parts,
    held_words,
    is_held,
    queries_beyond_release,
    trial_note,
)
from tests import tiny
from tests.report.trials import record

JOINT = {"attack": {"name": "joint", "model": tiny.DIGIT}}
MIA = {"attack": {"name": "mia"}, "evaluation.task": "class-inference"}
KINDS = {
    "same-train": ("train",),
    "same-heldout": (),
    "same-test": ("test",),
    "generic": (),
    "distinct": (),
    "augmented": ("train",),
}


def trial(changes: dict[str, Any]) -> TrialSpec:
    """Return a tiny trial with all images of its auxiliary kind."""
    return tiny.spec({"auxiliary.size": None, **changes})


def contents(images: ImageSet) -> set[bytes]:
    """Return the images as bytes."""
    return {image.numpy().tobytes() for image in images.images[:]}


def test_every_kind_is_here() -> None:
    assert set(KINDS) == set(Auxiliary.model_fields["kind"].annotation.__args__)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_that_are_held_are_those_whose_images_the_adversary_has(kind: str) -> None:
    spec = trial({"auxiliary.kind": kind})
    private, k = load("digits", Location()), spec.target.classes
    other = auxiliary_dataset_name(spec.auxiliary, spec.data)
    own = contents(
        auxiliary_images(private, load(other, Location()) if other else None, spec.data, k, spec.auxiliary)
    )
    for part in PARTS:
        private_images = contents(target_images(private, spec.data, k, READ[part]))
        assert is_held(spec, part) == (part in KINDS[kind])
        assert len(own & private_images) == (len(private_images) if is_held(spec, part) else 0)
    assert held_parts(spec) == KINDS[kind]


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({"auxiliary.kind": "same-train", "auxiliary.size": 3}, ("train",)),  # some of them
        ({**JOINT, "auxiliary.kind": "same-test"}, ("train",)),  # a developer has F's training images alone
        (
            {**JOINT, "target.selection": "test"},
            ("train", "test"),
        ),  # and chooses the epoch on its test images
        ({"target.selection": "test"}, ()),  # somebody else's choice
        ({"attack.selection": "victim-train"}, ("train",)),
        ({"attack.selection": "victim-train", "auxiliary.kind": "same-test"}, ("train", "test")),
        ({"attack": {"name": "optimization"}, "auxiliary.kind": "same-train"}, ()),  # reads no image set
        ({**MIA, "auxiliary.kind": "same-train"}, ()),
        ({"evaluation.task": "class-inference", "auxiliary.kind": "same-train"}, ("class",)),
        ({"evaluation.task": "class-inference", "auxiliary.kind": "same-test"}, ()),
        ({**JOINT, "evaluation.task": "class-inference"}, ("class",)),
    ],
    ids=str,
)
def test_what_an_attack_holds(changes: dict[str, Any], held: tuple[str, ...]) -> None:
    assert held_parts(trial(changes)) == held


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attack.align": True}, 0.0),
        ({"attack.align": False}, 64.0),
        ({"attack.align": "random"}, 64.0),
        ({"attack.align": False, "release.truncation": None}, 0.0),  # all scores are released
        ({"attack.align": False, "release": {"truncation": None, "decimals": 2}}, 64.0),
        ({"attack.align": False, "release": {"labels_only": True}}, 64.0),
        ({"release": {"labels_only": True}}, 0.0),
        ({"attack": {"name": "optimization"}}, None),
        (JOINT, None),
    ],
    ids=str,
)
def test_queries_beyond_the_release(changes: dict[str, Any], expected: float | None) -> None:
    metrics = {QUERIES: 64.0}
    wanted = {} if expected is None else {BEYOND: expected}
    assert queries_beyond_release(trial(changes), metrics) == wanted
    assert queries_beyond_release(trial(changes), {}) == {}  # a trial that failed before it asked


def test_words_have_one_order_and_a_trial_without_marks_has_no_note() -> None:
    assert held_words(["test", "train", "test"]) == "train, test"
    assert held_words([]) == trial_note(record(0, {})) == ""
    both = record(0, {}, {BEYOND: 64.0}, held=("train", "test"))
    assert trial_note(both) == (
        "The adversary held the private images that metrics of the part train, test read. "
        "64 queries were answered with more than the service releases."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_of_images_that_the_adversary_holds_is_refused(kind: str) -> None:
    other = {"model": tiny.DIGIT, "seed": 9, "images": "auxiliary"}
    spec = trial({"auxiliary.kind": kind, "judges": {"classifiers": {"other": other}}})
    if kind != "same-heldout":
        check_judges(spec)
        return
    with pytest.raises(Refused) as caught:
        check_judges(spec)
    assert str(caught.value) == (
        "judges.classifiers.other.images=auxiliary is what the adversary holds with "
        "auxiliary.kind=same-heldout; use train or another auxiliary.kind."
    )
    with pytest.raises(Refused, match=r"^judge.images=auxiliary is what the adversary holds"):
        check_judges(trial({"auxiliary.kind": kind, "judge.images": "auxiliary"}))


@pytest.mark.parametrize("kind", ["generic", "augmented", "distinct"])
@pytest.mark.parametrize("overlap", ["refuse", "remove", "allow"])
def test_a_judge_promises_nothing_beside_a_set_that_may_share_its_images(kind: str, overlap: str) -> None:
    auxiliary = {"kind": kind, "dataset": "photo-patches", "overlap": overlap}
    other = {"model": tiny.DIGIT, "seed": 9, "images": "auxiliary"}
    spec = trial({"auxiliary": auxiliary, "judges": {"classifiers": {"other": other}}})
    if overlap != "allow" or kind == "distinct":
        check_judges(spec)
        return
    with pytest.raises(Refused) as caught:
        check_judges(spec)
    assert str(caught.value) == (
        "judges.classifiers.other.images=auxiliary promises images that the adversary has not, but "
        "auxiliary.overlap=allow admits them; use train, or auxiliary.overlap=remove."
    )
    check_judges(trial({"auxiliary": auxiliary}))
    check_judges(
        trial({"auxiliary": auxiliary, "attack": {"name": "optimization"}, "judge.images": "auxiliary"})
    )
