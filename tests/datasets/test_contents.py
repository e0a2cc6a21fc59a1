"""Contents: equal images as they are staged, in the parts and classes that must not share any."""

import dataclasses

import numpy as np
import pytest

from orchestrator.config import Data
from orchestrator.config.base import Refused
from orchestrator.datasets import PARTS, Dataset, Location, load
from orchestrator.datasets.contents import check_judge_contents, check_prior_contents, digests, of_classes
from orchestrator.datasets.selection import private_classes, public_classes

DATA = Data(dataset="digits", class_pool=6)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", Location())


def place(dataset: Dataset, label: int, part: str) -> int:
    """Return where the first image of a class in a part is."""
    chosen = (dataset.labels == label) & (dataset.splits["default"] == PARTS.index(part))
    return int(np.flatnonzero(chosen)[0])


def with_copy(dataset: Dataset, source: int, copy: int) -> Dataset:
    """Return the set with one image in the place of another."""
    images = dataset.images[:].copy()
    images[copy] = images[source]
    return dataclasses.replace(dataset, images=images)


@pytest.mark.parametrize("part", ["train", "evaluation"])
def test_a_private_image_among_the_public_ones_is_found(digits: Dataset, part: str) -> None:
    check_prior_contents(digits, None, DATA, 3)
    mine, public = private_classes(digits, DATA, 3), public_classes(digits, DATA)
    leaky = with_copy(digits, place(digits, mine[2], part), place(digits, public[0], "auxiliary"))
    text = rf"^prior\.dataset=null promises .* 1 of \d+ equal one of its {part} im"
    with pytest.raises(Refused, match=text):
        check_prior_contents(leaky, None, DATA, 3)
    check_prior_contents(leaky, None, DATA, 2)  # a target of two classes does not know the third


def test_the_whole_of_another_set_is_compared(digits: Dataset) -> None:
    other = dataclasses.replace(
        digits, images=digits.images[:40].copy(), labels=digits.labels[:40], splits={}, class_names=()
    )
    known = set(of_classes(digits, DATA, private_classes(digits, DATA, 2), ("train",)))
    shared = sum(one in known for one in digests(other))
    assert shared > 0
    with pytest.raises(Refused, match=rf"but {shared} of 40 equal one of its train images"):
        check_prior_contents(digits, other, DATA, 2)


def test_a_judge_of_other_images_has_none_of_target_or_adversary(digits: Dataset) -> None:
    label = private_classes(digits, DATA, 2)[0]
    own = place(digits, label, "auxiliary")
    check_judge_contents(digits, DATA, 2, {}, "judge.images")
    copied = with_copy(digits, place(digits, label, "train"), own)
    text = (
        r"^judge\.images=auxiliary promises images that neither target nor adversary has, but 1 of \d+ equal "
        r"one of the target's images; use train, or stage digits again without duplicates\.$"
    )
    with pytest.raises(Refused, match=text):
        check_judge_contents(copied, DATA, 2, {}, "judge.images")
    held = {"the adversary's images in faces": (b"other", digests(digits)[own])}
    with pytest.raises(Refused, match=r"1 of \d+ equal one of the adversary's images in faces; use train"):
        check_judge_contents(digits, DATA, 2, held, "judge.images")
