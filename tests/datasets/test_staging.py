"""Staging: images kept, dropped and counted; files written; sets refused."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.config.base import NO_VALUE
from orchestrator.datasets import Location, describe, load, staging
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.manifest import Identities, ListedSplit, Manifest, Options, SplitRule, dump
from orchestrator.datasets.sources.base import BadImage, Source, array_source
from orchestrator.datasets.splits import make_split
from orchestrator.datasets.staging import publish
from orchestrator.store.blobs import sha256

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
LABELS = np.repeat(np.arange(3), 10)


def small(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, names: str = "abc") -> Source:
    return array_source("npz", images, labels, names, "0" * 64)


def staged(source: Source, **options: Any) -> tuple[Manifest, MemoryBlobs]:
    blobs = MemoryBlobs("memory")
    manifest, is_new = publish(source, Options(**options), blobs, "set")
    assert is_new
    return manifest, blobs


def test_many_shards_are_one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SHARD_BYTES", 7 * 64)
    manifest, blobs = staged(small())
    assert len(manifest.images) == 5
    assert np.array_equal(load("set", Location(blobs)).images[:], IMAGES)


def test_the_manifest_is_written_last() -> None:
    order: list[str] = []

    class Watching(MemoryBlobs):
        def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
            order.append(name)
            return super().put(name, data, overwrite=overwrite)

    publish(small(), Options(), Watching("memory"), "set")
    assert order[-1] == "set/manifest.json"
    assert len(order) == 6  # one shard, labels, three splits, manifest


def test_staging_again_writes_nothing() -> None:
    first, blobs = staged(small())
    before = {name: blobs.get(name) for name in blobs.names("")}
    again, is_new = publish(small(), Options(), blobs, "set")
    assert not is_new
    assert again == first
    assert {name: blobs.get(name) for name in blobs.names("")} == before


class Dying(MemoryBlobs):
    """Blobs that end the staging after a number of files and count the files sent."""

    def __init__(self, num_files: int) -> None:
        super().__init__("memory")
        self.left = num_files
        self.sent: list[str] = []

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Keep the object or die."""
        if self.left == 0:
            raise ConnectionError("killed")
        self.left -= 1
        self.sent.append(name)
        return super().put(name, data, overwrite=overwrite)


@pytest.mark.parametrize("num_files", range(10))
def test_a_staging_that_ended_early_sends_only_the_rest(
    num_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "SHARD_BYTES", 7 * 64)
    _, whole = staged(small())
    blobs = Dying(num_files)
    with pytest.raises(ConnectionError, match="killed"):
        publish(small(), Options(), blobs, "set")
    blobs.left = 100
    sent: list[tuple[str, bool]] = []
    publish(small(), Options(), blobs, "set", on_file=lambda file, is_new: sent.append((file.name, is_new)))
    assert sorted(blobs.sent) == whole.names(""), "something was sent twice"
    assert {name: blobs.get(name) for name in blobs.names("")} == {
        name: whole.get(name) for name in whole.names("")
    }
    assert [is_new for _, is_new in sent] == [False] * num_files + [True] * (9 - num_files)


def test_a_file_of_another_size_is_sent_again() -> None:
    _, whole = staged(small())
    (shard,) = whole.names("set/images-")
    blobs = MemoryBlobs("memory")
    blobs.put(shard, b"half")
    publish(small(), Options(), blobs, "set")
    assert blobs.get(shard) == whole.get(shard)


def test_another_set_under_a_taken_name_is_refused() -> None:
    _, blobs = staged(small())
    with pytest.raises(ValueError, match=r"memory/set already holds another set .*choose another --name"):
        publish(small(), Options(min_images=2), blobs, "set")


def test_exact_duplicates_are_dropped_and_counted_by_class() -> None:
    images = IMAGES.copy()
    images[3] = images[1]  # same class
    images[25] = images[1]  # another class
    manifest, blobs = staged(small(images))
    assert manifest.dropped == {"duplicate": 1, "duplicate of another class": 1}
    assert manifest.dropped_names == ("image 3", "image 25")
    assert (manifest.seen, manifest.kept) == (30, 28)
    assert np.array_equal(load("set", Location(blobs)).images[:], np.delete(images, [3, 25], axis=0))
    assert staged(small(images), duplicates="keep")[0].kept == 30


def test_small_classes_are_left_out_and_the_rest_renumbered() -> None:
    labels = np.array([0] * 2 + [1] * 14 + [2] * 14)
    manifest, blobs = staged(small(labels=labels), min_images=3)
    assert manifest.class_names == ("b", "c")
    assert manifest.dropped == {"class too small": 2}
    assert load("set", Location(blobs)).labels.tolist() == [0] * 14 + [1] * 14


def test_large_classes_are_left_out_too() -> None:
    labels = np.array([0] * 3 + [1] * 10 + [2] * 17)
    manifest, blobs = staged(small(labels=labels), max_images=10)
    assert manifest.class_names == ("a", "b")
    assert manifest.dropped == {"class too large": 17}
    assert load("set", Location(blobs)).labels.tolist() == [0] * 3 + [1] * 10


def test_a_set_without_splits_of_its_own_gets_ours_and_the_two_of_ami() -> None:
    manifest, _ = staged(small())
    assert {name: entry.counts for name, entry in manifest.splits.items()} == {
        "default": (15, 9, 6),
        "half": (15, 0, 15),
        "eighty": (24, 0, 6),
    }
    assert [rule.seed for rule in manifest.options.splits.values()] == [0, 666, 666]


def test_what_the_source_leaves_out_is_counted_with_its_reason() -> None:
    gone = tuple(f"row {number}" for number in range(150))
    source = dataclasses.replace(small(), left_out={"no such picture on disk": gone, "other": ("a",)})
    manifest, _ = staged(source)
    assert manifest.dropped == {"no such picture on disk": 150, "other": 1}
    assert (manifest.seen, manifest.kept) == (181, 30)
    assert manifest.dropped_names == (*gone[:100], "a")


def test_splits_of_the_source_follow_the_images_that_stay() -> None:
    images = IMAGES.copy()
    images[1] = images[0]
    codes = np.arange(30, dtype=np.uint8) % 3
    source = array_source("npz", images, LABELS, "abc", "0" * 64, {"original": codes})
    manifest, blobs = staged(source, splits={"halves": SplitRule(fractions=(0.5, 0.0, 0.5), seed=1)})
    dataset = load("set", Location(blobs))
    assert dataset.splits["original"].tolist() == np.delete(codes, 1).tolist()
    assert dataset.description.splits == ("halves", "original")
    assert manifest.splits["original"].rule is None
    assert manifest.splits["halves"].counts[1] == 0


def bad_at(index: int) -> Source:
    source = small()

    def read(one: int) -> np.ndarray:
        if one == index:
            raise BadImage("image 4", NO_VALUE, "is damaged", "replace it", "damaged")
        return IMAGES[one]

    return Source(source.kind, "set", source.class_names, LABELS, read, source.label_of, source.fingerprint)


def test_a_bad_image_ends_the_staging_or_is_counted() -> None:
    blobs = MemoryBlobs("memory")
    with pytest.raises(BadImage, match="image 4 is damaged"):
        publish(bad_at(4), Options(), blobs, "set")
    assert blobs.get("set/manifest.json") is None
    manifest, _ = staged(bad_at(4), on_bad="skip")
    assert manifest.dropped == {"damaged": 1}
    assert manifest.dropped_names == ("image 4",)


REFUSED: dict[str, tuple[Callable[[], Source], str]] = {
    "gap": (
        lambda: small(labels=LABELS // 2 * 2),
        r"no image of class 1 \(b\), and 1 of 3 classes are empty",
    ),
    "negative": (lambda: small(labels=LABELS - 1), r"label -1, but labels must lie in 0\.\.2"),
    "too high": (lambda: small(names="ab"), r"label 2, but labels must lie in 0\.\.1"),
    "one class": (
        lambda: small(labels=LABELS * 0, names="a"),
        r"1 class\(es\), but a classifier needs at least 2",
    ),
    "nothing": (lambda: small(IMAGES[:0], LABELS[:0]), "has no images"),
    "duplicates only": (
        lambda: small(np.repeat(IMAGES[:1], 30, axis=0)),
        r"npz has 1 class\(es\), but a classifier needs at least 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_are_checked(case: str) -> None:
    build, text = REFUSED[case]
    blobs = MemoryBlobs("memory")
    with pytest.raises(ValueError, match=text):
        publish(build(), Options(), blobs, "set")
    assert blobs.get("set/manifest.json") is None


def test_images_of_different_sizes_need_a_size() -> None:
    pictures = [*IMAGES[:29], IMAGES[29][:4]]
    source = Source("image-folder", "set", tuple("abc"), LABELS, pictures.__getitem__, str, "0" * 64)
    with pytest.raises(ValueError, match=r"differ in size or channels \(8x8x1 and 4x8x1\); pass --size"):
        publish(source, Options(), MemoryBlobs("memory"), "set")


def test_classes_too_small_for_the_split_are_found_before_any_image_is_read() -> None:
    def never(index: int) -> np.ndarray:
        raise AssertionError(f"image {index} was read")

    source = Source("npz", "set", ("a", "b"), np.array([0, 0, 0, 1]), never, str, "0" * 64)
    with pytest.raises(ValueError, match=r"1 of 2 classes have fewer \(class b has 1\)"):
        publish(source, Options(), MemoryBlobs("memory"), "set")


@pytest.mark.parametrize("name", ["../up", "UP", "a/b", "", "x" * 65])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower-case letters"):
        publish(small(), Options(), MemoryBlobs("memory"), name)


def shrinking(*names: str) -> Source:
    """Return classes of four images each, of which the last class has two alike."""
    images = np.random.default_rng(1).integers(0, 256, (4 * len(names), 8, 8, 1), dtype=np.uint8)
    images[-1] = images[-2] = images[-3]
    return array_source("npz", images, np.repeat(np.arange(len(names)), 4), names, "0" * 64)


def test_classes_too_small_for_the_split_are_named_before_anything_is_written() -> None:
    blobs = MemoryBlobs("memory")
    with pytest.raises(ValueError, match=r"split\.fractions") as caught:
        publish(shrinking("ann", "bob", "carl"), Options(), blobs, "set")
    assert str(caught.value) == (
        "split.fractions=0.5,0.25,0.25 need 3 images in every class, but 1 of 3 classes have fewer "
        "(class carl has 2); leave small classes out with --min-images 3 or use a split of one part such as "
        "default=1,0,0@0."
    )
    assert blobs.names("") == []
    assert staged(shrinking("ann", "bob", "carl"), min_images=3)[0].class_names == ("ann", "bob")


def test_a_draw_too_small_for_the_split_is_refused_as_such() -> None:
    text = "--per-class=2 is less than the 3 images in every class that split default needs; raise it to 3"
    with pytest.raises(ValueError, match=text):
        publish(small(), Options(per_class=2), MemoryBlobs("memory"), "set")
    assert staged(small(), per_class=3)[0].kept == 9


def test_a_class_that_is_small_enough_once_its_copies_are_gone_stays() -> None:
    images = IMAGES[:12].copy()
    images[5:8] = images[4]
    labels = np.repeat(np.arange(3), 4)
    one_part = {"all": SplitRule(fractions=(1.0, 0.0, 0.0))}
    with pytest.raises(ValueError, match=r"1 class\(es\), but a classifier needs at least 2"):
        staged(small(images, labels), max_images=3, splits=one_part)
    images[9] = images[8]
    manifest, _ = staged(small(images, labels), max_images=3, splits=one_part)
    assert manifest.class_names == ("b", "c")
    assert manifest.dropped == {"class too large": 4, "duplicate": 4}


@pytest.mark.parametrize("seed", [0, 1, 666])
def test_a_split_is_drawn_by_its_own_seed(seed: int) -> None:
    rules = {"mine": SplitRule(seed=seed), "next": SplitRule(seed=seed + 1)}
    _, blobs = staged(small(), splits=rules)
    codes = load("set", Location(blobs)).splits
    assert np.array_equal(codes["mine"], make_split(LABELS, (0.5, 0.25, 0.25), seed))
    assert np.array_equal(codes["next"], make_split(LABELS, (0.5, 0.25, 0.25), seed + 1))
    assert not np.array_equal(codes["mine"], codes["next"])


def test_a_set_without_classes_says_so_in_its_manifest_and_others_say_nothing() -> None:
    manifest, blobs = staged(small().unlabelled(), unlabelled=True)
    assert (manifest.class_names, manifest.options.unlabelled) == (("unlabelled",), True)
    assert load("set", Location(blobs)).labels.tolist() == [0] * 30
    assert b'"unlabelled": true' in dump(manifest)
    assert b"unlabelled" not in dump(staged(small())[0])
    with pytest.raises(ValueError, match="already holds another set"):
        publish(small(), Options(), blobs, "set")


def test_the_digests_of_staged_sets_stay() -> None:
    """A change here gives every user's sets, and all stages computed from them, other keys."""
    images = np.arange(30 * 64, dtype=np.int64).reshape(30, 8, 8, 1) % 251
    manifest, _ = staged(small(images.astype(np.uint8)), min_images=2)
    assert sha256(dump(manifest)) == "a13cca041030d69203fe0e6b6e1dc0c6850bfda24c11e6fedb739a49cf912d71"
    assert (
        describe("digits", Location()).digest
        == "0ff3eb2e7272f718829598ddcc9f66b454224473d058a61b95d0a138ac409bff"
    )


def test_no_listed_class_is_left_out_silently() -> None:
    labels = np.array([0] * 4 + [1] * 16 + [2] * 10)
    listed = Identities(sha256="0" * 64, names=3)
    expected = (
        r"^--identities lists a, whose images --min-images, --max-images, --duplicates or --on-bad leave out "
        r"\(1 of 3 classes\); remove it from the list or change that option\.$"
    )
    with pytest.raises(ValueError, match=expected):
        staged(small(labels=labels), identities=listed, min_images=5)
    assert staged(small(labels=labels), identities=listed, min_images=3)[0].class_names == ("a", "b", "c")
    assert staged(small(labels=labels), min_images=5)[0].class_names == ("b", "c")


def test_no_class_with_a_label_on_a_split_list_is_left_out_silently() -> None:
    images = IMAGES.copy()
    nothing: dict[str, Any] = {"splits": {}}
    images[:10] = images[10:20]
    copies = small(images[::-1].copy(), LABELS[::-1].copy())  # each image of a equals an earlier one of b
    lists = ListedSplit(sha256=("0" * 64, None, None), names=(30, 0, 0), labels=3, is_numbered=True)
    with pytest.raises(ValueError, match=r"^--split-list lists a, whose .* \(1 of 3 classes\); remove it"):
        staged(copies, split_lists={"own": lists}, **nothing)
    kept = staged(copies, split_lists={"own": lists}, duplicates="keep", **nothing)[0]
    assert kept.class_names == ("a", "b", "c")
    bare = lists.but(labels=0, is_numbered=False)
    assert staged(copies, split_lists={"own": bare}, **nothing)[0].class_names == ("b", "c")
