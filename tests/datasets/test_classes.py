"""Names that two sets share, and private classes without images, from manifests and labels alone."""

import dataclasses
import re

import numpy as np
import pytest

from orchestrator.config import Auxiliary, Data
from orchestrator.datasets import Description, Labels
from orchestrator.datasets.classes import (
    check_auxiliary,
    check_data,
    check_labelled,
    check_parts,
    class_order,
    ordered,
    other_classes,
    private_classes,
    public_classes,
    resolved_order,
    shared_identities,
)

DATA = Data(dataset="faces", class_pool=3)


def about(name: str, *class_names: str) -> Description:
    return Description(
        name=name,
        digest="0" * 64,
        source="memory",
        num_images=4 * len(class_names),
        num_classes=len(class_names),
        image_shape=(8, 8, 1),
        splits=("default",),
        class_names=class_names,
    )


FACES = about("faces", "Ann_Lee", "Bob_Ray", "Carl", "Dora", "Eve")
POOL = [FACES.class_names[one] for one in class_order(5, 0)[:3]]
PUBLIC = [FACES.class_names[one] for one in class_order(5, 0)[3:]]


def spelt(name: str) -> str:
    return name.upper().replace("_", " ")


def test_shared_names_are_those_of_the_pool_in_any_spelling() -> None:
    other = about("other", spelt(POOL[1]), PUBLIC[0], "Nobody", spelt(POOL[0]))
    assert shared_identities(FACES, other, DATA) == (spelt(POOL[1]), spelt(POOL[0]))
    everything = Data(dataset="faces")
    assert shared_identities(FACES, other, everything) == (spelt(POOL[1]), PUBLIC[0], spelt(POOL[0]))


@pytest.mark.parametrize("seed", [0, 1, 2, 7, 666])
@pytest.mark.parametrize("pool", [1, 3, 4, None])
def test_every_list_of_classes_follows_the_one_order_of_the_seed(seed: int, pool: int | None) -> None:
    data = Data(dataset="faces", class_pool=pool, class_seed=seed)
    order = class_order(5, seed).tolist()
    size = pool or 5
    private, public = private_classes(FACES, data, size), public_classes(FACES, data)
    assert (list(private), list(public)) == (order[:size], order[size:])
    assert not set(private) & set(public)
    assert shared_identities(FACES, FACES, data) == tuple(FACES.class_names[one] for one in sorted(private))
    generic = Auxiliary(kind="generic", dataset="copy", overlap="remove")
    if public:
        assert other_classes(FACES, None, data, generic) == public
        assert other_classes(FACES, FACES, data, generic) == tuple(sorted(public))


def test_two_seeds_have_two_orders() -> None:
    assert len({tuple(class_order(10, seed).tolist()) for seed in (0, 1, 2, 7, 666)}) == 5


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ("staged", [0, 1, 2, 3, 4]),
        (("Carl", "ann lee"), [2, 0, 1, 3, 4]),
        ((2, 0), [2, 0, 1, 3, 4]),
        (("Eve",), [4, 0, 1, 2, 3]),
    ],
    ids=str,
)
def test_an_order_that_is_given_comes_first_and_the_others_follow(order: object, ids: list[int]) -> None:
    data = Data.model_validate({"dataset": "faces", "class_order": order, "class_pool": 3})
    assert list(private_classes(FACES, data, 2)) == ids[:2]
    assert list(public_classes(FACES, data)) == ids[3:]
    pool = {FACES.class_names[one] for one in ids[:3]}
    assert set(shared_identities(FACES, FACES, data)) == pool


def test_an_order_has_one_form() -> None:
    assert resolved_order(FACES, ("Bob_Ray", "Ann_Lee")) == (1, 0)
    assert resolved_order(FACES, (1, 0)) == (1, 0)
    assert resolved_order(FACES, ("Ann_Lee", "Bob_Ray")) == "staged"
    assert ordered(5, "seeded", 3).tolist() == class_order(5, 3).tolist()


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (("Carla",), "names Carla, which is no class of faces (it has Carl); correct the name or stage"),
        (("Zoe",), "names Zoe, which is no class of faces (it has Ann_Lee, Bob_Ray, Carl, ...); correct"),
        ((5,), "has the place 5, but the classes of faces are 0..4; correct it or name the class."),
    ],
    ids=str,
)
def test_a_class_that_the_set_has_not_is_refused(order: tuple[str | int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"data.class_order {text}")):
        resolved_order(FACES, order)


def test_a_name_of_two_classes_is_refused_unless_it_is_written_as_one_of_them() -> None:
    twins = about("twins", "Ann_Lee", "ann lee", "Bob")
    assert resolved_order(twins, ("ann lee",)) == (1,)
    with pytest.raises(
        ValueError, match="names ANN LEE, which may be Ann_Lee and ann lee of twins; write it"
    ):
        resolved_order(twins, ("ANN LEE",))


FLICKR = dataclasses.replace(about("ffhq", "unlabelled"), is_labelled=False)


def test_a_set_without_classes_is_no_private_set() -> None:
    text = (
        "data.dataset=ffhq was staged with --unlabelled, but classifiers are trained and tested on classes; "
        "name a set with classes, or use this one as auxiliary.dataset."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        check_data(FLICKR, Data(dataset="ffhq"), 1)
    with pytest.raises(ValueError, match=r"^target\.pretrain\.dataset=ffhq was staged with --unlabelled"):
        check_labelled(FLICKR, "target.pretrain.dataset")


@pytest.mark.parametrize("kind", ["generic", "distinct", "augmented"])
def test_a_set_without_classes_is_an_auxiliary_set(kind: str) -> None:
    auxiliary = Auxiliary.model_validate({"kind": kind, "dataset": "ffhq"})
    check_auxiliary(FACES, DATA, auxiliary)
    assert other_classes(FACES, FLICKR, DATA, auxiliary) == (0,)


def test_the_private_set_gives_its_public_classes() -> None:
    generic = Auxiliary(kind="generic")
    assert other_classes(FACES, None, DATA, generic) == tuple(int(one) for one in class_order(5, 0)[3:])


@pytest.mark.parametrize("kind", ["generic", "augmented"])
def test_overlap_is_refused_removed_or_allowed(kind: str) -> None:
    other = about("other", POOL[0], "Nobody", POOL[1], PUBLIC[0])

    def classes(overlap: str) -> tuple[int, ...]:
        chosen = {"kind": kind, "dataset": "other", "overlap": overlap}
        return other_classes(FACES, other, DATA, Auxiliary.model_validate(chosen))

    assert classes("remove") == (1, 3)
    assert classes("allow") == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="auxiliary") as refusal:
        classes("refuse")
    assert str(refusal.value) == (
        f"auxiliary.dataset=other holds 2 of the private classes by name ({POOL[0]}, {POOL[1]}), but "
        f"auxiliary.kind={kind} promises others; set auxiliary.overlap to remove or allow, or stage it again "
        "with --exclude."
    )


def test_many_shared_names_are_cut_short() -> None:
    everybody = Auxiliary(kind="generic", dataset="copy")
    with pytest.raises(ValueError, match=r"holds 5 of .* by name \(Ann_Lee, Bob_Ray, Carl, \.\.\.\), but"):
        other_classes(FACES, FACES, Data(dataset="faces"), everybody)


def test_removing_everybody_is_refused() -> None:
    removed = Auxiliary(kind="generic", dataset="copy", overlap="remove")
    with pytest.raises(
        ValueError, match=r"auxiliary.overlap=remove leaves nothing of auxiliary.dataset=copy"
    ):
        other_classes(FACES, about("copy", *POOL), DATA, removed)


def test_distinct_sets_are_not_compared_by_name() -> None:
    assert other_classes(FACES, FACES, DATA, Auxiliary(kind="distinct", dataset="x")) == (0, 1, 2, 3, 4)


def there(gaps: dict[str, int]) -> Labels:
    """Return labels of four images in each part and class, without those of the given part and class."""
    labels, codes = np.repeat(np.arange(5), 12), np.tile(np.arange(12) % 3, 5).astype(np.uint8)
    stays = np.ones(60, dtype=bool)
    for part, label in gaps.items():
        stays &= ~((labels == label) & (codes == ("train", "auxiliary", "evaluation").index(part)))
    return Labels(labels[stays], {"default": codes[stays]})


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("train", "same-train"),
        ("evaluation", "same-test"),
        ("auxiliary", "same-heldout"),
        ("train", "generic"),
    ],
)
def test_a_private_class_without_an_image_of_a_needed_part_is_named(part: str, kind: str) -> None:
    private = int(class_order(5, 0)[1])
    with pytest.raises(ValueError, match="has no") as refusal:
        check_parts(FACES, there({part: private}), DATA, 2, kind)
    assert str(refusal.value) == (
        f"data.split=default of faces has no {part} image of class {private} ({FACES.class_names[private]}), "
        "and 1 of 2 private classes have none; use another data.split or stage the set again with --split or "
        "--exclude."
    )


def test_gaps_of_other_classes_do_not_matter() -> None:
    check_parts(FACES, there({"train": int(class_order(5, 0)[4])}), DATA, 3, "same-heldout")


def test_gaps_in_a_part_without_use_do_not_matter() -> None:
    check_parts(FACES, there({"auxiliary": int(class_order(5, 0)[1])}), DATA, 2, "same-train")


def test_a_split_without_a_part_is_fine_until_the_part_is_needed() -> None:
    half = Labels(np.repeat(np.arange(5), 2), {"default": np.tile(np.array([0, 2], dtype=np.uint8), 5)})
    check_parts(FACES, half, DATA, 3, "same-test")
    text = "data.split=default of faces has no auxiliary images of the chosen classes; use another data.split"
    with pytest.raises(ValueError, match=text):
        check_parts(FACES, half, DATA, 3, "same-heldout")
