"""Each image read once where memory allows, and bad ones raised or counted."""

from collections import Counter

import numpy as np
import pytest

from orchestrator.config.base import NO_VALUE
from orchestrator.datasets import reading
from orchestrator.datasets.filtering import choose
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.reading import Reader
from orchestrator.datasets.sources.base import BadImage, Source

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
LABELS = np.repeat(np.arange(2), 3)


class Counting:
    """A source of six images in two classes that counts how often each is read; `bad` ones cannot be."""

    def __init__(self, *bad: int) -> None:
        self.reads: Counter[int] = Counter()
        self._bad = bad
        self.source = Source("npz", "set", ("a", "b"), LABELS, self._read, str, "0" * 64)

    def _read(self, index: int) -> np.ndarray:
        self.reads[index] += 1
        if index in self._bad:
            raise BadImage(f"image {index}", NO_VALUE, "is damaged", "replace it", "damaged")
        return IMAGES[index]


@pytest.mark.parametrize(("room", "reads"), [(1 << 20, [1] * 6), (3 * 16, [1, 1, 1, 2, 2, 2])])
def test_images_beyond_the_room_in_memory_are_read_again(
    monkeypatch: pytest.MonkeyPatch, room: int, reads: list[int]
) -> None:
    monkeypatch.setattr(reading, "HELD_BYTES", room)
    counting = Counting()
    reader = Reader(counting.source, Options())
    assert len(set(reader.examine().contents)) == 6
    assert np.array_equal(np.stack([reader.image(index) for index in range(6)]), IMAGES)
    assert [counting.reads[index] for index in range(6)] == reads


def test_a_class_of_too_few_files_is_not_read() -> None:
    counting = Counting()
    Reader(counting.source, Options(min_images=4)).examine()
    assert not counting.reads


def test_a_bad_image_ends_the_reading_where_it_stands() -> None:
    counting = Counting(1)
    with pytest.raises(BadImage, match="image 1 is damaged"):
        Reader(counting.source, Options()).examine()
    assert sum(counting.reads.values()) == 2


def test_a_bad_image_of_a_class_too_large_is_no_error() -> None:
    options = Options(max_images=2)
    reader = Reader(Counting(1).source, options)
    choice = choose(reader.examine(), options)
    assert choice.kept.tolist() == []
    reader.check(choice.kept, "set")


def test_a_bad_image_that_was_not_drawn_is_no_error() -> None:
    outcomes = set()
    for bad in range(3):
        options = Options(per_class=2)
        reader = Reader(Counting(bad).source, options)
        try:
            choice = choose(reader.examine(), options)
            reader.check(choice.kept, "set")
            outcomes.add(dict(choice.dropped)[bad])
        except BadImage:
            outcomes.add("error")
    assert outcomes == {"error", "beyond --per-class"}


def test_skipped_images_have_reasons() -> None:
    examined = Reader(Counting(1, 4).source, Options(on_bad="skip")).examine()
    assert examined.reasons == {1: "damaged", 4: "damaged"}
    assert [index for index, content in enumerate(examined.contents) if content is None] == [1, 4]
