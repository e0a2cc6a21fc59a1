"""What each party sees: exact classes, exact parts, and no overlap where none is promised."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from orchestrator.config import Auxiliary, Data
from orchestrator.datasets import PARTS, Dataset, Location, load, selection, shards
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.gathered import Gathered, Images
from orchestrator.datasets.images import prepare
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import (
    ImageSet,
    auxiliary_dataset_name,
    auxiliary_images,
    class_order,
    classes_map,
    judge_images,
    private_classes,
    public_classes,
    public_images,
    target_images,
    whole,
)
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish

DATA = Data(dataset="digits", class_pool=6)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", Location())


def contents(images: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images[:]}


def stored(dataset: Dataset, classes: tuple[int, ...], *parts: str) -> set[bytes]:
    """Take images of some classes and parts straight from the arrays; digits are 32x32 grey already."""
    codes = [PARTS.index(part) for part in parts]
    chosen = np.isin(dataset.labels, classes) & np.isin(dataset.splits["default"], codes)
    return {image.transpose(2, 0, 1).tobytes() for image in dataset.images[chosen]}


def test_the_class_order_is_one_seeded_permutation() -> None:
    assert sorted(class_order(10, 0)) == list(range(10))
    assert class_order(10, 0).tolist() == class_order(10, 0).tolist()
    assert class_order(10, 0).tolist() != class_order(10, 1).tolist()


def test_smaller_targets_are_nested_in_larger_ones(digits: Dataset) -> None:
    draws = [private_classes(digits, DATA, k) for k in range(1, 7)]
    assert all(large[: len(small)] == small for small, large in pairwise(draws))
    assert len(set(draws[-1])) == 6


def test_private_and_public_classes_are_all_classes_once(digits: Dataset) -> None:
    pool, public = private_classes(digits, DATA, 6), public_classes(digits, DATA)
    assert sorted(pool + public) == list(range(10))
    assert public_classes(digits, Data(dataset="digits")) == ()


def test_a_description_is_enough_to_draw_classes(digits: Dataset) -> None:
    assert private_classes(digits.description, DATA, 3) == private_classes(digits, DATA, 3)


def test_the_map_names_each_label(digits: Dataset) -> None:
    first = private_classes(digits, DATA, 2)
    assert classes_map(digits, DATA, 2) == [
        {"label": 0, "class": first[0], "name": str(first[0])},
        {"label": 1, "class": first[1], "name": str(first[1])},
    ]


@pytest.mark.parametrize("part", PARTS)
def test_target_images_are_one_part_relabelled_in_class_order(digits: Dataset, part: str) -> None:
    private = private_classes(digits, DATA, 3)
    images = target_images(digits, DATA, 3, part)
    assert contents(images) == stored(digits, private, part)
    for label, original in enumerate(private):
        mine = {image.numpy().tobytes() for image in images.images[images.labels == label]}
        assert mine == stored(digits, (original,), part)
    assert images.num_classes == 3
    assert images.images[:].dtype == torch.uint8
    assert images.labels.dtype == torch.int64


def test_parts_are_disjoint_and_complete(digits: Dataset) -> None:
    parts = [contents(judge_images(digits, DATA, part)) for part in PARTS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_the_judge_keeps_the_original_labels(digits: Dataset) -> None:
    images = judge_images(digits, DATA, "evaluation")
    assert images.num_classes == 10
    for label in range(10):
        mine = {image.numpy().tobytes() for image in images.images[images.labels == label]}
        assert mine == stored(digits, (label,), "evaluation")


def test_public_images_leave_the_evaluation_part_alone(digits: Dataset) -> None:
    images = public_images(digits, DATA)
    assert contents(images) == stored(digits, public_classes(digits, DATA), "train", "auxiliary")
    assert images.labels.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("most", [0, selection.MOST_KEPT_BYTES])
def test_images_are_converted_alike_whether_the_set_is_kept_or_not(
    most: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_KEPT_BYTES", most)
    selection._every.cache_clear()
    data = Data(dataset="digits", class_pool=6, image_size=48, channels=3)
    for _ in range(2):
        found = target_images(digits, data, 3, "train")
        chosen = np.isin(digits.labels, private_classes(digits, data, 3))
        chosen &= digits.splits["default"] == PARTS.index("train")
        assert torch.equal(found.images[:], prepare(digits.images[chosen], 48, 3))
        found.images[:].zero_()  # what is kept is not what was given away
    assert selection._every.cache_info().misses == (1 if most else 0)


ASKED: dict[str, Callable[[Dataset, Dataset, Data], ImageSet]] = {
    "target": lambda digits, letters, data: target_images(digits, data, 3, "train"),
    "public": lambda digits, letters, data: public_images(digits, data),
    "judge": lambda digits, letters, data: judge_images(digits, data, "evaluation"),
    "whole": lambda digits, letters, data: whole(letters, data),
    "same-heldout": lambda digits, letters, data: auxiliary_images(
        digits, None, data, 3, Auxiliary(size=30, seed=3)
    ),
    "augmented": lambda digits, letters, data: auxiliary_images(
        digits, letters, data, 3, Auxiliary(kind="augmented", dataset="letters", overlap="allow", size=50)
    ),
}


@pytest.mark.parametrize("how", ["alike", "converted", "per-position"])
@pytest.mark.parametrize("name", ASKED)
def test_a_selection_read_a_batch_at_a_time_has_the_same_images(
    name: str, how: str, digits: Dataset, letters: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: dict[str, object] = {} if how == "alike" else {"image_size": 20, "channels": 3}
    changes = {**sides, **({"normalisation": how} if how == "per-position" else {})}
    data = Data.model_validate({"dataset": "digits", "class_pool": 6, **changes})
    held = ASKED[name](digits, letters, data)
    monkeypatch.setattr(shards, "HELD_BYTES", 0)
    monkeypatch.setattr(selection, "MOST_KEPT_BYTES", 0)
    read = ASKED[name](digits, letters, data)
    assert isinstance(held.images, torch.Tensor)
    assert isinstance(read.images, Gathered)
    assert torch.equal(read.labels, held.labels)
    assert torch.equal(read.images[:], held.images)
    shuffled = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
    assert torch.equal(read.at(shuffled).images[:7], held.images[shuffled[:7]])


def test_whole_is_every_image_prepared(digits: Dataset) -> None:
    images = whole(digits, Data(dataset="digits", image_size=16, channels=3))
    assert images.images.shape == (1797, 3, 16, 16)
    assert images.labels.tolist() == digits.labels.tolist()


KINDS = {
    "same-train": (("private",), ("train",)),
    "same-heldout": (("private",), ("auxiliary",)),
    "same-test": (("private",), ("evaluation",)),
    "generic": (("public",), PARTS),  # AMI, Table I: every image of MNIST's other digits
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_exactly_the_promised_images(digits: Dataset, kind: str) -> None:
    auxiliary = Auxiliary.model_validate({"kind": kind})
    (whose,), parts = KINDS[kind]
    classes = private_classes(digits, DATA, 4) if whose == "private" else public_classes(digits, DATA)
    assert auxiliary_dataset_name(auxiliary, DATA) is None
    assert contents(auxiliary_images(digits, None, DATA, 4, auxiliary)) == stored(digits, classes, *parts)


def test_augmented_is_the_training_images_and_the_generic_ones(digits: Dataset) -> None:
    images = auxiliary_images(digits, None, DATA, 4, Auxiliary(kind="augmented"))
    train = stored(digits, private_classes(digits, DATA, 4), "train")
    generic = stored(digits, public_classes(digits, DATA), *PARTS)
    assert contents(images) == train | generic
    assert len(images) == len(train) + len(generic)
    assert {image.numpy().tobytes() for image in images.images[images.labels < 4]} == train
    assert images.num_classes == 8


def test_distinct_is_the_photograph_patches_in_grey(digits: Dataset) -> None:
    auxiliary = Auxiliary(kind="distinct")
    name = auxiliary_dataset_name(auxiliary, DATA)
    assert name == "photo-patches"
    images = auxiliary_images(digits, load(name, Location()), DATA, 4, auxiliary)
    assert images.images.shape == (2000, 1, 32, 32)
    every = stored(digits, tuple(range(10)), *PARTS)
    assert not contents(images) & every


def test_a_named_source_is_loaded_unless_it_is_the_private_set() -> None:
    assert auxiliary_dataset_name(Auxiliary(kind="generic", dataset="omniglot"), DATA) == "omniglot"
    assert auxiliary_dataset_name(Auxiliary(kind="generic", dataset="digits"), DATA) is None
    assert auxiliary_dataset_name(Auxiliary(kind="same-train", dataset="omniglot"), DATA) is None


def test_smaller_auxiliary_sets_are_nested_and_seeded(digits: Dataset) -> None:
    def images(size: int | None, seed: int = 0) -> torch.Tensor:
        return auxiliary_images(digits, None, DATA, 4, Auxiliary(size=size, seed=seed)).images[:]

    everything = images(None)
    assert torch.equal(images(10), everything[:10])
    assert torch.equal(images(50), everything[:50])
    assert not torch.equal(images(10, seed=1), everything[:10])


def test_a_set_larger_than_there_is_is_an_error(digits: Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"auxiliary.size=5000 must lie in 1\.\.\d+, the images of kind same-held"
    ):
        auxiliary_images(digits, None, DATA, 4, Auxiliary(size=5000))


def with_leak(dataset: Dataset, part: str, of: str = "train") -> Dataset:
    """Copy one private image of the part `of` over one image of `part` of the same class."""
    private = private_classes(dataset, DATA, 1)[0]
    images = dataset.images[:].copy()
    mine, codes = dataset.labels == private, dataset.splits["default"]
    source = np.flatnonzero(mine & (codes == PARTS.index(of)))[0]
    images[np.flatnonzero(mine & (codes == PARTS.index(part)))[0]] = images[source]
    return dataclasses.replace(dataset, images=images)


def test_one_training_image_among_the_held_out_ones_is_found(digits: Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"same-heldout promises .* but 1 of \d+ equal one of its train images"
    ):
        auxiliary_images(with_leak(digits, "auxiliary"), None, DATA, 2, Auxiliary())


def test_one_test_image_among_the_held_out_ones_is_found(digits: Dataset) -> None:
    leaky = with_leak(digits, "auxiliary", of="evaluation")
    text = r"same-heldout promises .* but 1 of \d+ equal one of its evaluation images"
    with pytest.raises(ValueError, match=text):
        auxiliary_images(leaky, None, DATA, 2, Auxiliary())


def test_images_are_compared_once_and_a_leak_is_found_every_time(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection._check_unseen.cache_clear()
    compared: list[int] = []
    contents = selection._contents

    def watched(images: Images) -> Iterator[bytes]:
        compared.append(len(images))
        return contents(images)

    monkeypatch.setattr(selection, "_contents", watched)
    for size, seed in ((10, 0), (None, 0), (20, 1)):  # choices among the same images
        auxiliary_images(digits, None, DATA, 2, Auxiliary(size=size, seed=seed))
    assert len(compared) == 4  # the held-out images with both parts
    auxiliary_images(digits, None, DATA, 3, Auxiliary(size=10))
    assert len(compared) == 8
    leaky = with_leak(digits, "auxiliary")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 of \d+ equal one of its train images"):
            auxiliary_images(leaky, None, DATA, 2, Auxiliary())


@pytest.mark.parametrize("kind", ["generic", "distinct", "augmented"])
@pytest.mark.parametrize("part", ["train", "evaluation"])
def test_one_private_image_in_another_set_is_found(
    digits: Dataset, letters: Dataset, kind: str, part: str
) -> None:
    private = target_images(digits, DATA, 2, part).images[:][0].permute(1, 2, 0).numpy()
    images = letters.images[:].copy()
    images[5] = private
    other = dataclasses.replace(letters, images=images)
    chosen = {"kind": kind, "dataset": "letters", "overlap": "allow"}
    with pytest.raises(ValueError, match=rf"kind={kind} promises .* but 1 of 30 equal one of its {part} im"):
        auxiliary_images(digits, other, DATA, 2, Auxiliary.model_validate(chosen))


@pytest.mark.parametrize("part", ["train", "evaluation"])
@pytest.mark.parametrize("normalisation", ["fixed", "per-position"])
def test_one_private_image_in_the_set_of_a_prior_is_found(
    digits: Dataset, letters: Dataset, part: str, normalisation: str
) -> None:
    """Stretched over the extremes of two sets, equal images differ."""
    data = DATA.but(normalisation=normalisation)
    selection.check_prior_images(digits, letters, data, 2)
    images = letters.images[:].copy()
    images[5] = target_images(digits, DATA, 2, part).images[:][0].permute(1, 2, 0).numpy()
    other = dataclasses.replace(letters, images=images)
    text = (
        rf"^prior\.dataset=letters promises images unknown to the target, but 1 of 30 equal one of its "
        rf"{part} images; choose another prior\.dataset or stage digits again without duplicates\.$"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            selection.check_prior_images(digits, other, data, 2)


def test_one_private_image_among_the_public_classes_of_a_prior_is_found(digits: Dataset) -> None:
    selection.check_prior_images(digits, None, DATA, 2)
    images, codes = digits.images[:].copy(), digits.splits["default"]
    public = (digits.labels == public_classes(digits, DATA)[0]) & (codes == PARTS.index("train"))
    mine = (digits.labels == private_classes(digits, DATA, 1)[0]) & (codes == PARTS.index("evaluation"))
    images[np.flatnonzero(public)[0]] = images[np.flatnonzero(mine)[0]]
    leaky = dataclasses.replace(digits, images=images)
    text = r"^prior\.dataset=null promises .* but 1 of \d+ equal one of its evaluation images"
    with pytest.raises(ValueError, match=text):
        selection.check_prior_images(leaky, None, DATA, 2)


def test_private_and_public_images_follow_the_class_seed(digits: Dataset) -> None:
    for seed in (1, 5):
        data = DATA.model_copy(update={"class_seed": seed})
        order = class_order(10, seed).tolist()
        assert contents(target_images(digits, data, 3, "train")) == stored(digits, tuple(order[:3]), "train")
        public = auxiliary_images(digits, None, data, 3, Auxiliary(kind="generic"))
        assert contents(public) == stored(digits, tuple(order[6:]), *PARTS)
        assert contents(public_images(digits, data)) == stored(digits, tuple(order[6:]), "train", "auxiliary")


def test_a_set_without_classes_is_an_auxiliary_set_only(digits: Dataset) -> None:
    images = np.random.default_rng(1).integers(0, 256, (30, 32, 32, 1), dtype=np.uint8)
    source = array_source("npz", images, np.arange(30) % 3, "abc", "0" * 64).unlabelled()
    blobs = MemoryBlobs("memory")
    publish(source, Options(unlabelled=True), blobs, "faces")
    faces = load("faces", Location(blobs))
    assert not faces.description.is_labelled
    everything = {image.transpose(2, 0, 1).tobytes() for image in images}
    for kind in ("generic", "distinct"):
        auxiliary = Auxiliary.model_validate({"kind": kind, "dataset": "faces"})
        assert contents(auxiliary_images(digits, faces, DATA, 2, auxiliary)) == everything
    with pytest.raises(ValueError, match=r"data\.dataset=faces was staged with --unlabelled"):
        target_images(faces, Data(dataset="faces"), 1, "train")
    with pytest.raises(ValueError, match=r"target\.pretrain\.dataset=faces was staged with --unlabelled"):
        whole(faces, DATA)


def test_the_test_images_themselves_are_no_leak_but_training_images_among_them_are(digits: Dataset) -> None:
    images = auxiliary_images(digits, None, DATA, 2, Auxiliary(kind="same-test"))
    assert contents(images) == contents(target_images(digits, DATA, 2, "evaluation"))
    with pytest.raises(ValueError, match=r"same-test promises .* but 1 of \d+ equal one of its train images"):
        auxiliary_images(with_leak(digits, "evaluation"), None, DATA, 2, Auxiliary(kind="same-test"))


@pytest.fixture(scope="module")
def letters() -> Dataset:
    """A set of new images: one class has a private digit's name, one a public digit's, one another."""
    names = [str(one) for one in class_order(10, 0)[[0, 9]]] + ["x"]
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 1), dtype=np.uint8)
    blobs = MemoryBlobs("memory")
    source = array_source("npz", images, np.arange(30) % 3, names, "0" * 64)
    publish(source, Options(), blobs, "letters")
    return load("letters", Location(blobs))


@pytest.mark.parametrize("kind", ["generic", "augmented"])
def test_private_names_in_another_set_are_refused_removed_or_allowed(
    digits: Dataset, letters: Dataset, kind: str
) -> None:
    def images(overlap: str) -> ImageSet:
        chosen = {"kind": kind, "dataset": "letters", "overlap": overlap}
        return auxiliary_images(digits, letters, DATA, 2, Auxiliary.model_validate(chosen))

    private = letters.class_names[0]
    text = rf"auxiliary.dataset=letters holds 1 of the private classes by name \({private}\), but auxiliary"
    with pytest.raises(ValueError, match=text + rf".kind={kind} promises others; set auxiliary.overlap to"):
        images("refuse")
    extra = len(target_images(digits, DATA, 2, "train")) if kind == "augmented" else 0
    assert len(images("allow")) == 30 + extra
    removed = images("remove")
    assert len(removed) == 20 + extra
    first = {image.transpose(2, 0, 1).tobytes() for image in letters.images[letters.labels == 0]}
    assert not contents(removed) & first
    assert removed.num_classes == 2 + (2 if extra else 0)


@pytest.mark.parametrize("kind", ["generic", "distinct", "augmented"])
def test_a_source_that_contains_the_private_images_is_found(digits: Dataset, kind: str) -> None:
    auxiliary = Auxiliary.model_validate({"kind": kind, "dataset": "copy", "overlap": "allow"})
    with pytest.raises(ValueError, match=rf"auxiliary.kind={kind} promises .* but \d+ of 1797 equal"):
        auxiliary_images(digits, digits, DATA, 2, auxiliary)


@pytest.mark.parametrize(
    ("data", "k", "text"),
    [
        (
            Data(dataset="digits"),
            12,
            r"target.classes=12 must lie in 1..10, the classes of digits; lower target",
        ),
        (DATA, 7, r"target.classes=7 must lie in 1..6, the size of data.class_pool; lower target.classes"),
        (
            Data(dataset="digits", class_pool=11),
            2,
            r"data.class_pool=11 must lie in 1..10, the classes of digits",
        ),
        (
            Data(dataset="digits", split="odd"),
            2,
            r"data.split=odd is not a split of digits; it has default, eighty, even, half",
        ),
    ],
)
def test_impossible_requests_name_the_way_out(digits: Dataset, data: Data, k: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        target_images(digits, data, k, "train")


def test_no_public_classes_is_an_error_that_names_the_pool(digits: Dataset) -> None:
    everything = Data(dataset="digits")
    with pytest.raises(ValueError, match=r"data\.class_pool=null leaves no public class of the 10 of digits"):
        public_images(digits, everything)
    with pytest.raises(
        ValueError, match=r"data\.class_pool=null leaves no public class .* auxiliary.kind=generic"
    ):
        auxiliary_images(digits, None, everything, 4, Auxiliary(kind="generic"))


def test_distinct_must_be_another_set(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"auxiliary\.dataset=digits is the private data set"):
        auxiliary_images(digits, None, DATA, 4, Auxiliary(kind="distinct", dataset="digits"))


def test_an_empty_part_is_an_error(digits: Dataset) -> None:
    only_train = dataclasses.replace(digits, splits={"default": np.zeros(1797, dtype=np.uint8)})
    with pytest.raises(ValueError, match=r"data\.split=default of digits has no auxiliary images"):
        auxiliary_images(only_train, None, DATA, 4, Auxiliary())
