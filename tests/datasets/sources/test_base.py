"""Sources: their parts, digests and label checks, and the refusal of one image."""

import pickle

import numpy as np
import pytest

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import BadImage, array_source, check_labels, fingerprint_of

IMAGES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)


def test_images_in_memory_are_read_one_at_a_time() -> None:
    source = array_source("npz", IMAGES, np.array([1, 0, 1], dtype=np.uint8), "ab", "0" * 64)
    assert np.array_equal(source.read(1), IMAGES[1])
    assert (source.labels.dtype, source.labels.tolist()) == (np.dtype(np.int64), [1, 0, 1])
    assert (source.class_names, source.label_of(2), source.splits) == (("a", "b"), "image 2", {})


def test_conversion_passes_each_image_with_its_name() -> None:
    source = array_source("npz", IMAGES, np.array([0, 1, 1]), "ab", "0" * 64).renamed("other")
    names: list[str] = []

    def double(image: np.ndarray, name: str) -> np.ndarray:
        names.append(name)
        return image * 2

    converted = source.converted(double)
    assert converted.name == "other"
    assert np.array_equal(converted.read(2), IMAGES[2] * 2)
    assert names == ["image 2"]


def test_a_source_is_restricted_to_images_and_classes_in_a_new_order() -> None:
    codes = {"own": np.array([2, 1, 0], dtype=np.uint8)}
    whole = array_source("npz", IMAGES, np.array([2, 0, 1]), "abc", "0" * 64, codes)
    part = whole.restricted(np.array([0, 2]), [2, 1], "not asked for")
    assert (part.class_names, part.labels.tolist()) == (("c", "b"), [0, 1])
    assert np.array_equal(part.read(1), IMAGES[2])
    assert (part.label_of(1), part.splits["own"].tolist()) == ("image 2", [2, 0])
    assert part.left_out == {"not asked for": ("image 1",)}
    again = part.restricted(np.array([1]), [1], "not asked for")
    assert (again.label_of(0), again.class_names) == ("image 2", ("b",))
    assert again.left_out == {"not asked for": ("image 1", "image 0")}


def test_fingerprints_depend_on_names_contents_and_their_order() -> None:
    files = [("a", b"1"), ("b", b"2")]
    others = [files[::-1], [("a", b"2"), ("b", b"1")], [("a", b"1")], [("c", b"1"), ("b", b"2")]]
    digests = {fingerprint_of(one) for one in [files, *others]}
    assert len(digests) == 5
    assert fingerprint_of(iter(files)) in digests


@pytest.mark.parametrize(
    ("labels", "names", "text"),
    [
        ([], "ab", r"^numbers has no images; check the source"),
        ([0, 0], "a", r"^numbers has 1 class\(es\), but a classifier needs at least 2; add classes\.$"),
        ([0, 2], "ab", r"^numbers has label 2, but labels must lie in 0\.\.1, one per class name"),
        ([0, -1], "ab", r"^numbers has label -1, but labels must lie in 0\.\.1"),
        ([0, 2], "abc", r"^numbers has no image of class 1 \(b\), and 1 of 3 classes are empty"),
    ],
)
def test_labels_that_are_not_all_of_the_classes_are_refused(labels: list[int], names: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        check_labels(np.array(labels, dtype=np.int64), tuple(names), "numbers")


def test_a_bad_image_is_a_refusal_that_keeps_its_reason_between_processes() -> None:
    bad = BadImage("a.png", NO_VALUE, "is empty", "replace it", "empty")
    assert str(bad) == "a.png is empty; replace it."
    copied = pickle.loads(pickle.dumps(bad))
    assert (str(copied), copied.reason) == (str(bad), "empty")
