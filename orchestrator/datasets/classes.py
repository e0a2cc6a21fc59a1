"""Classes: the target's private ones, the first k of an order, and the public ones, outside the pool.

Draws are nested (k=3 within k=5), so sweep points can be paired by class. Identities shared with another data
set are found by name. Without torch, because plans are made from it too.
"""

import difflib
from collections.abc import Sequence

import numpy as np

from orchestrator.config import Auxiliary, Data
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.data import ClassOrder
from orchestrator.datasets.catalog import Dataset, Description, Labels
from orchestrator.datasets.sources.exclusion import folded
from orchestrator.datasets.splits import PARTS

PHOTO_PATCHES = "photo-patches"
SAME_PARTS = {"same-train": "train", "same-heldout": "auxiliary", "same-test": "evaluation"}
"""Auxiliary kind -> the part of the private classes that it consists of."""

PRIVATE_PARTS = {**SAME_PARTS, "augmented": "train"}
"""Auxiliary kind -> the part of the private classes that is in it; other kinds have no private image."""

NAMES_SHOWN = 3  # of shared identities in a message


def class_order(num_classes: int, seed: int) -> np.ndarray:
    """Return all N class ids in the order in which they become private, (N,) int64."""
    return np.random.default_rng(seed).permutation(num_classes)


def ordered(num_classes: int, order: ClassOrder, seed: int) -> np.ndarray:
    """Return all N class ids in the order in which they become private, (N,) int64.

    `order` is seeded, drawn by `seed`; staged; or the ids of the first classes, which the others follow.
    """
    if order == "seeded":
        return class_order(num_classes, seed)
    first = () if isinstance(order, str) else order
    others = np.setdiff1d(np.arange(num_classes), first)
    return np.concatenate([np.asarray(first, dtype=np.int64), others])


def resolved_order(about: Description, order: Sequence[int | str]) -> ClassOrder:
    """Return the canonical form of a list of class names or ids: ids, or staged if that is their order.

    Raise `Refused` of `data.class_order` if one of them is no class of the set.
    """
    ids = _ids([_id(about, one) for one in order])
    return "staged" if ids == tuple(range(len(ids))) else ids


def _id(about: Description, one: int | str) -> int:
    """Return the id of a class by its id or name; names are compared folded, but for equal ones."""
    if isinstance(one, int):
        if one >= about.num_classes:
            rule = f"has the place {one}, but the classes of {about.name} are 0..{about.num_classes - 1}"
            raise Refused("data.class_order", NO_VALUE, rule, "correct it or name the class")
        return one
    exact = [place for place, name in enumerate(about.class_names) if name == one]
    alike = exact or [place for place, name in enumerate(about.class_names) if folded(name) == folded(one)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        several = " and ".join(about.class_names[place] for place in alike[:2])
        rule = f"names {one}, which may be {several} of {about.name}"
        raise Refused("data.class_order", NO_VALUE, rule, "write it as the data set does")
    near = difflib.get_close_matches(one, about.class_names, 1) or (*about.class_names[:NAMES_SHOWN], "...")
    rule = f"names {one}, which is no class of {about.name} (it has {', '.join(near)})"
    raise Refused("data.class_order", NO_VALUE, rule, "correct the name or stage the set with that class")


def private_classes(dataset: Dataset | Description, data: Data, k: int) -> tuple[int, ...]:
    """Return the original ids of the target's k classes, in order of the target's labels 0..k-1.

    Raise `Refused` if k or `data.class_pool` exceeds the available classes.
    """
    about = _about(dataset)
    pool = _pool(about, data)
    if not 1 <= k <= pool:
        limit = f"the classes of {about.name}" if data.class_pool is None else "the size of data.class_pool"
        raise Refused("target.classes", k, f"must lie in 1..{pool}, {limit}", "lower target.classes")
    return _ids(_order(about, data)[:k])


def public_classes(dataset: Dataset | Description, data: Data) -> tuple[int, ...]:
    """Return the original ids of the classes outside `data.class_pool`, () if the pool holds all."""
    about = _about(dataset)
    return _ids(_order(about, data)[_pool(about, data) :])


def classes_map(dataset: Dataset, data: Data, k: int) -> list[dict[str, int | str]]:
    """Return label, original class id and class name for each of the target's k labels."""
    private = private_classes(dataset, data, k)
    return [
        {"label": label, "class": original, "name": dataset.class_names[original]}
        for label, original in enumerate(private)
    ]


def auxiliary_dataset_name(auxiliary: Auxiliary, data: Data) -> str | None:
    """Return the name of the auxiliary data set, or None if the private one serves."""
    if auxiliary.kind in SAME_PARTS:
        return None
    if auxiliary.kind == "distinct" and auxiliary.dataset is None:
        return PHOTO_PATCHES
    return None if auxiliary.dataset == data.dataset else auxiliary.dataset


def shared_identities(
    private: Dataset | Description, other: Dataset | Description, data: Data
) -> tuple[str, ...]:
    """Return the class names of `other` that name classes in the private set's pool, compared folded."""
    about = _about(private)
    pool = _order(about, data)[: _pool(about, data)]
    names = {folded(about.class_names[one]) for one in pool}
    return tuple(name for name in other.class_names if folded(name) in names)


def other_classes(
    private: Dataset | Description, other: Dataset | Description | None, data: Data, auxiliary: Auxiliary
) -> tuple[int, ...]:
    """Return the class ids of `other` that a generic, distinct or augmented set uses.

    Without `other` they are the private set's public classes. Raise `Refused` if identities are shared with
    the private pool and `auxiliary.overlap` is `refuse`, or if removing them leaves no class.
    """
    if other is None:
        return public_classes(private, data)
    every = range(_about(other).num_classes)
    if auxiliary.kind == "distinct" or auxiliary.overlap == "allow":
        return _ids(every)
    shared = shared_identities(private, other, data)
    remaining = [one for one in every if other.class_names[one] not in set(shared)]
    if shared and auxiliary.overlap == "refuse":
        raise _overlap(shared, auxiliary)
    if not remaining:
        emptied = f"leaves nothing of auxiliary.dataset={auxiliary.dataset}"
        rule = f"{emptied}, all of whose classes are private by name"
        raise Refused("auxiliary.overlap", "remove", rule, "name another data set")
    return _ids(remaining)


def check_data(about: Description, data: Data, k: int) -> None:
    """Raise `Refused` if the set has no labels, no k private classes or lacks the split; read no images."""
    check_labelled(about, "data.dataset")
    private_classes(about, data, k)
    if data.split not in about.splits:
        rule = f"is not a split of {about.name}"
        raise Refused("data.split", data.split, rule, f"it has {', '.join(about.splits)}")


def check_labelled(about: Description, reader: str) -> None:
    """Raise `Refused` of `reader`, the field that names the set, if its images have no classes."""
    if not about.is_labelled:
        rule = "was staged with --unlabelled, but classifiers are trained and tested on classes"
        raise Refused(
            reader, about.name, rule, "name a set with classes, or use this one as auxiliary.dataset"
        )


def check_parts(about: Description, stored: Labels, data: Data, k: int, kind: str) -> None:
    """Raise `Refused` if a private class has no image in a part that the trial needs; read no images.

    `kind` is the auxiliary set's; train and evaluation are always needed.
    """
    private = private_classes(about, data, k)
    for part in dict.fromkeys(("train", "evaluation", SAME_PARTS.get(kind, "train"))):
        in_part = stored.splits[data.split] == PARTS.index(part)
        sizes = np.bincount(stored.labels[in_part], minlength=about.num_classes)
        empty = [one for one in private if sizes[one] == 0]
        if len(empty) == k:
            raise no_images(about, data, (part,))
        if empty:
            first = f"of {about.name} has no {part} image of class {empty[0]} ({about.class_names[empty[0]]})"
            rule = f"{first}, and {len(empty)} of {k} private classes have none"
            way_out = "use another data.split or stage the set again with --split or --exclude"
            raise Refused("data.split", data.split, rule, way_out)


def no_images(about: Description, data: Data, parts: Sequence[str]) -> Refused:
    """Return the refusal of a split without any image of the chosen classes in `parts`."""
    rule = f"of {about.name} has no {' or '.join(parts)} images of the chosen classes"
    return Refused("data.split", data.split, rule, "use another data.split")


def check_public(about: Description, data: Data, reader: str) -> None:
    """Raise `Refused` if there are no public classes; `reader` is the field that needs them."""
    if not public_classes(about, data):
        rule = f"leaves no public class of the {about.num_classes} of {about.name}, but {reader} needs some"
        way_out = "lower data.class_pool or name another dataset there"
        raise Refused("data.class_pool", data.class_pool or "null", rule, way_out)


def check_prior(about: Description, other: Description, data: Data) -> None:
    """Raise `Refused` if `other`, the set that a prior is trained on, holds private classes by name."""
    shared = shared_identities(about, other, data) if other.is_labelled else ()
    if shared:
        rule = f"{_held(shared)}, but a prior is trained on public images"
        way_out = "stage it again with --exclude, or use null for the public classes of the private set"
        raise Refused("prior.dataset", other.name, rule, way_out)


def check_auxiliary(about: Description, data: Data, auxiliary: Auxiliary) -> None:
    """Raise `Refused` if the auxiliary kind needs public classes or another set, and there are none."""
    needs_others = auxiliary.kind in ("generic", "augmented")
    if needs_others and auxiliary_dataset_name(auxiliary, data) is None:
        check_public(about, data, f"auxiliary.kind={auxiliary.kind}")
    if auxiliary.kind == "distinct" and auxiliary.dataset == data.dataset:
        rule = "is the private data set, but auxiliary.kind=distinct needs unrelated images"
        way_out = "name another data set or use null for the photograph patches"
        raise Refused("auxiliary.dataset", auxiliary.dataset, rule, way_out)


def _overlap(shared: tuple[str, ...], auxiliary: Auxiliary) -> Refused:
    return Refused(
        "auxiliary.dataset",
        auxiliary.dataset,
        f"{_held(shared)}, but auxiliary.kind={auxiliary.kind} promises others",
        "set auxiliary.overlap to remove or allow, or stage it again with --exclude",
    )


def _held(shared: tuple[str, ...]) -> str:
    names = ", ".join(shared[:NAMES_SHOWN]) + (", ..." if len(shared) > NAMES_SHOWN else "")
    return f"holds {len(shared)} of the private classes by name ({names})"


def _about(dataset: Dataset | Description) -> Description:
    return dataset.description if isinstance(dataset, Dataset) else dataset


def _order(about: Description, data: Data) -> np.ndarray:
    order = data.class_order
    assert order != "weights"  # the plan has their classes
    known = order if isinstance(order, str) else resolved_order(about, order)
    return ordered(about.num_classes, known, data.class_seed)


def _pool(about: Description, data: Data) -> int:
    pool = about.num_classes if data.class_pool is None else data.class_pool
    if pool > about.num_classes:
        rule = f"must lie in 1..{about.num_classes}, the classes of {about.name}"
        raise Refused("data.class_pool", pool, rule, "lower data.class_pool")
    return pool


def _ids(classes: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    return tuple(int(one) for one in classes)
