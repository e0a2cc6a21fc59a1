"""Which images and classes are kept: limits on usable images, duplicates across classes, draws."""

import numpy as np
import pytest

from orchestrator.datasets.filtering import Choice, Examined, by_files, choose, drawn, renumbered
from orchestrator.datasets.manifest import Options


def chosen(text: str, **options: object) -> Choice:
    """Choose from classes between spaces: a letter is a content, `!` a damaged image."""
    classes = text.split()
    labels = np.repeat(np.arange(len(classes)), [len(one) for one in classes])
    letters = "".join(classes)
    contents = [None if letter == "!" else letter for letter in letters]
    reasons = {index: "damaged" for index, letter in enumerate(letters) if letter == "!"}
    return choose(Examined(labels, len(classes), contents, reasons), Options.model_validate(options))


KEPT: dict[str, tuple[str, dict[str, object], list[int], list[bool], dict[int, str]]] = {
    "everything": ("ab cd", {}, [0, 1, 2, 3], [True, True], {}),
    "copies": (
        "aba cdd bef",
        {},
        [0, 1, 3, 4, 7, 8],
        [True, True, True],
        {2: "duplicate", 5: "duplicate", 6: "duplicate of another class"},
    ),
    "copies kept": ("aa ab", {"duplicates": "keep"}, [0, 1, 2, 3], [True, True], {}),
    "a copy makes a class too small": (
        "abc dde",
        {"min_images": 3},
        [0, 1, 2],
        [True, False],
        {3: "class too small", 4: "class too small", 5: "class too small"},
    ),
    "a damaged image makes a class too small and keeps its reason": (
        "abc d!e",
        {"min_images": 3},
        [0, 1, 2],
        [True, False],
        {3: "class too small", 4: "damaged", 5: "class too small"},
    ),
    "a class of damaged images alone is left out": (
        "ab !!",
        {},
        [0, 1],
        [True, False],
        {2: "damaged", 3: "damaged"},
    ),
    "a copy makes a class small enough": (
        "abca de",
        {"max_images": 3},
        [0, 1, 2, 4, 5],
        [True, True],
        {3: "duplicate"},
    ),
    "too large": (
        "ab! cd",
        {"max_images": 1, "duplicates": "keep"},
        [],
        [False, False],
        dict.fromkeys(range(5), "class too large"),
    ),
    "images of a class that leaves are no originals": (
        "ab acd",
        {"min_images": 3},
        [2, 3, 4],
        [False, True],
        {0: "class too small", 1: "class too small"},
    ),
    "and neither are those of one that leaves later": (
        "abb bcde",
        {"min_images": 3},
        [3, 4, 5, 6],
        [False, True],
        {0: "class too small", 1: "class too small", 2: "class too small"},
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_kept_and_why_the_rest_is_not(case: str) -> None:
    text, options, kept, stays, dropped = KEPT[case]
    choice = chosen(text, **options)
    assert choice.kept.tolist() == kept
    assert choice.stays.tolist() == stays
    assert dict(choice.dropped) == dropped
    assert [index for index, _ in choice.dropped] == sorted(dropped)


def test_a_draw_takes_usable_images_until_it_has_enough() -> None:
    text = "abcdefgh aijklm!n"
    choice = chosen(text, per_class=6)
    assert [int((choice.kept < 8).sum()), int((choice.kept >= 8).sum())] == [6, 6]
    reasons = dict(choice.dropped)
    assert (reasons.pop(8), reasons.pop(14)) == ("duplicate of another class", "damaged")
    assert list(reasons.values()) == ["beyond --per-class"] * 2


def test_without_unusable_images_the_draw_depends_on_the_files_alone() -> None:
    labels = np.repeat(np.arange(3), 10)
    every = np.ones(30, dtype=bool)
    first = drawn(labels, every, 3, Options(per_class=4))
    order = np.random.default_rng(0).permutation(30)
    expected = [[one for one in order if labels[one] == label][:4] for label in range(3)]
    assert np.flatnonzero(first).tolist() == sorted(np.concatenate(expected).tolist())
    assert np.array_equal(drawn(labels, every, 3, Options()), every)


def test_by_files_every_file_is_an_image() -> None:
    choice = by_files(np.array([0, 0, 1, 2, 2, 2]), 3, Options(min_images=2, max_images=2))
    assert choice.stays.tolist() == [True, False, False]
    assert renumbered(np.array([0, 0, 1, 2, 2, 2]), "abc", choice).class_names == ("a",)


def test_classes_that_stay_are_renumbered() -> None:
    labels = np.array([0, 1, 1, 2, 2])
    kept = renumbered(labels, "abc", by_files(labels, 3, Options(min_images=2)))
    assert kept.labels.tolist() == [0, 0, 1, 1]
    assert kept.class_names == ("b", "c")
