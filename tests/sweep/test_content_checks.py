"""Plans are refused whose prior has private images, or whose judge those of target or adversary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.base import Refused
from orchestrator.config.study import StudyError
from orchestrator.datasets import PARTS, Location, describe, load, shards
from orchestrator.datasets.classes import private_classes, public_classes
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.content_checks import ContentChecks
from orchestrator.sweep.points import Point, expand
from orchestrator.sweep.validation import Preflight
from tests import tiny

PRIOR = {"evaluation.task": "class-inference", "attack": {"name": "gmi"}, "prior": {}}
JUDGE = {"auxiliary": {"kind": "same-train", "size": None}, "judge.images": "auxiliary"}


def point(changes: dict[str, Any]) -> Point:
    """Return the only point of the tiny study with dotted paths changed, on a set of its own."""
    changes = {"data.dataset": "mine", "data.split": "mine", **changes}
    return expand(tiny.study({"seed": [0]}, changes))[0][0]


@pytest.fixture
def leaky(tmp_path: Path) -> DirectoryBlobs:
    """Return a location whose set `mine` has an image that F is trained on as a public one and as a judge's
    too; half of `faces` is an image that F is tested on, of `coloured` one that it is trained on, in RGB."""
    digits, data = load("digits", Location()), point({}).spec.data
    mine, public = private_classes(digits, data, 3)[0], public_classes(digits, data)[0]
    codes, images = digits.splits["default"], digits.images[:].copy()

    def first(label: int, part: str) -> int:
        return int(np.flatnonzero((digits.labels == label) & (codes == PARTS.index(part)))[0])

    blobs, keep = DirectoryBlobs(tmp_path), {"duplicates": "keep"}
    for name, part in (("faces", "evaluation"), ("coloured", "train")):
        pair = images[[first(public, "evaluation"), first(mine, part)]].repeat(20, axis=0)
        pair = pair.repeat(3, axis=3) if name == "coloured" else pair
        source = array_source("npz", pair, np.zeros(len(pair), dtype=np.int64), "a", "0" * 64).unlabelled()
        publish(source, Options.model_validate({**keep, "unlabelled": True}), blobs, name)
    for copy in (first(public, "train"), first(mine, "auxiliary")):
        images[copy] = images[first(mine, "train")]
    source = array_source("npz", images, digits.labels, digits.class_names, "0" * 64, {"mine": codes})
    publish(source, Options.model_validate(keep), blobs, "mine")
    return blobs


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (PRIOR, r"prior\.dataset=null promises .* but 1 of \d+ equal one of its train images"),
        (
            {**PRIOR, "prior": {"dataset": "faces"}},
            r"prior\.dataset=faces promises .* but 20 of 40 equal one of its evaluation images",
        ),
        (
            JUDGE,
            r"judge\.images=auxiliary promises .* but 1 of \d+ equal one of the target's images; use train, "
            r"or stage mine again without duplicates",
        ),
    ],
)
def test_it_is_refused_before_anything_starts(
    leaky: DirectoryBlobs, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(StudyError, match=text):
        Preflight(Location(leaky)).resolve(point(changes))


def test_a_set_of_another_shape_is_converted_and_compared(leaky: DirectoryBlobs) -> None:
    text = r"prior\.dataset=coloured promises .* but 20 of 40 equal one of its train images"
    with pytest.raises(StudyError, match=text):
        Preflight(Location(leaky)).resolve(point({**PRIOR, "prior": {"dataset": "coloured"}}))


def test_the_same_settings_on_a_set_without_copies_are_planned() -> None:
    for changes in (PRIOR, JUDGE):
        Preflight(Location()).resolve(point({"data.dataset": "digits", "data.split": "default", **changes}))


def test_a_prior_that_others_trained_has_no_images_to_compare(leaky: DirectoryBlobs) -> None:
    spec = point({**PRIOR, "attack.prior_weight": 0.0, "prior": {"weights": "stylegan"}}).spec
    about = {"mine": describe("mine", Location(leaky))}
    ContentChecks(Location(leaky)).check(spec, about)
    with pytest.raises(Refused, match=r"prior\.dataset=null promises"):
        ContentChecks(Location(leaky)).check(point(PRIOR).spec, about)


def test_what_cannot_be_read_cheaply_is_left_to_the_search(
    leaky: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of 1 KiB every set is a large one; in a bucket, without a cache, none is mapped."""
    monkeypatch.setattr(shards, "HELD_BYTES", 1024)
    monkeypatch.setattr("orchestrator.datasets.catalog.can_map", lambda *_: False)
    Preflight(Location(leaky)).resolve(point(PRIOR))
