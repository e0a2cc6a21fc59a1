"""Which classes are private and which public: one seeded order of all, of which the target takes the first k.

Draws are nested (k=3 inside k=5), so sweep points can be paired by class. Other sets may hold private people
under the same name; they are found here. Plans use this too: no torch here.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.config import Auxiliary, Data
from orchestrator.datasets.catalog import Dataset, Description, Labels
from orchestrator.datasets.sources.exclusion import folded
from orchestrator.datasets.splits import PARTS

PHOTO_PATCHES = "photo-patches"
SAME_PARTS = {"same-train": "train", "same-heldout": "auxiliary", "same-test": "evaluation"}
"""The part of the private classes that an auxiliary kind is."""

NAMES_SHOWN = 3


def class_order(num_classes: int, seed: int) -> np.ndarray:
    """Return all classes in the order in which they become private, (num_classes,) int64."""
    return np.random.default_rng(seed).permutation(num_classes)


def private_classes(dataset: Dataset | Description, data: Data, k: int) -> tuple[int, ...]:
    """Return the original ids of the target's k classes; label i of the target is the i-th of them."""
    about = _about(dataset)
    pool = _pool(about, data)
    if not 1 <= k <= pool:
        limit = f"the classes of {about.name}" if data.class_pool is None else "the size of data.class_pool"
        raise ValueError(f"target.classes={k} must lie in 1..{pool}, {limit}; lower target.classes.")
    return _ids(class_order(about.num_classes, data.class_seed)[:k])


def public_classes(dataset: Dataset | Description, data: Data) -> tuple[int, ...]:
    """Return the original ids of the classes outside the pool; there are none when the pool is everything."""
    about = _about(dataset)
    return _ids(class_order(about.num_classes, data.class_seed)[_pool(about, data) :])


def classes_map(dataset: Dataset, data: Data, k: int) -> list[dict[str, int | str]]:
    """Return for each label of the target its class in the data set, for the run's record."""
    private = private_classes(dataset, data, k)
    return [
        {"label": label, "class": original, "name": dataset.class_names[original]}
        for label, original in enumerate(private)
    ]


def auxiliary_dataset_name(auxiliary: Auxiliary, data: Data) -> str | None:
    """Return the data set to load beside the private one, or None if the private one is enough."""
    if auxiliary.kind in SAME_PARTS:
        return None
    if auxiliary.kind == "distinct" and auxiliary.dataset is None:
        return PHOTO_PATCHES
    return None if auxiliary.dataset == data.dataset else auxiliary.dataset


def shared_identities(
    private: Dataset | Description, other: Dataset | Description, data: Data
) -> tuple[str, ...]:
    """Return the class names of `other` that are also names of classes that may be private."""
    about = _about(private)
    pool = class_order(about.num_classes, data.class_seed)[: _pool(about, data)]
    names = {folded(about.class_names[one]) for one in pool}
    return tuple(name for name in other.class_names if folded(name) in names)


def other_classes(
    private: Dataset | Description, other: Dataset | Description | None, data: Data, auxiliary: Auxiliary
) -> tuple[int, ...]:
    """Return the classes of `other` that a generic, distinct or augmented set uses; without `other` they are
    the private set's public ones."""
    if other is None:
        return public_classes(private, data)
    every = range(_about(other).num_classes)
    if auxiliary.kind == "distinct" or auxiliary.overlap == "allow":
        return _ids(every)
    shared = shared_identities(private, other, data)
    remaining = [one for one in every if other.class_names[one] not in set(shared)]
    if shared and auxiliary.overlap == "refuse":
        raise ValueError(_spell_overlap(shared, auxiliary))
    if not remaining:
        raise ValueError(
            f"auxiliary.overlap=remove leaves nothing of auxiliary.dataset={auxiliary.dataset}, all of whose "
            "classes are private by name; name another data set."
        )
    return _ids(remaining)


def check_data(about: Description, data: Data, k: int) -> None:
    """Raise if the set cannot give k private classes or lacks the split; reads no images."""
    private_classes(about, data, k)
    if data.split not in about.splits:
        raise ValueError(
            f"data.split={data.split} is not a split of {about.name}; it has {', '.join(about.splits)}."
        )


def check_parts(about: Description, there: Labels, data: Data, k: int, kind: str) -> None:
    """Raise if a private class has no image in a part that the trial needs; reads no images."""
    private = private_classes(about, data, k)
    for part in dict.fromkeys(("train", "evaluation", SAME_PARTS.get(kind, "train"))):
        in_part = there.splits[data.split] == PARTS.index(part)
        sizes = np.bincount(there.labels[in_part], minlength=about.num_classes)
        empty = [one for one in private if sizes[one] == 0]
        if len(empty) == k:
            raise ValueError(no_images(about, data, (part,)))
        if empty:
            raise ValueError(
                f"data.split={data.split} of {about.name} has no {part} image of class {empty[0]} "
                f"({about.class_names[empty[0]]}), and {len(empty)} of {k} private classes have none; use "
                "another data.split or stage the set again with --split or --exclude."
            )


def no_images(about: Description, data: Data, parts: Sequence[str]) -> str:
    """Say that no chosen class has an image in some parts."""
    return (
        f"data.split={data.split} of {about.name} has no {' or '.join(parts)} images of the chosen classes; "
        "use another data.split."
    )


def check_public(about: Description, data: Data, reader: str) -> None:
    """Raise if there are no public classes; `reader` is the field that asks for them."""
    if not public_classes(about, data):
        raise ValueError(
            f"data.class_pool={data.class_pool or 'null'} leaves no public class of the "
            f"{about.num_classes} of {about.name}, but {reader} needs some; "
            "lower data.class_pool or name another dataset there."
        )


def check_auxiliary(about: Description, data: Data, auxiliary: Auxiliary) -> None:
    """Raise if the auxiliary set must come from public classes and there are none."""
    needs_others = auxiliary.kind in ("generic", "augmented")
    if needs_others and auxiliary_dataset_name(auxiliary, data) is None:
        check_public(about, data, f"auxiliary.kind={auxiliary.kind}")
    if auxiliary.kind == "distinct" and auxiliary.dataset == data.dataset:
        raise ValueError(
            f"auxiliary.dataset={auxiliary.dataset} is the private data set, but auxiliary.kind=distinct "
            "needs unrelated images; name another data set or use null for the photograph patches."
        )


def _spell_overlap(shared: tuple[str, ...], auxiliary: Auxiliary) -> str:
    names = ", ".join(shared[:NAMES_SHOWN]) + (", ..." if len(shared) > NAMES_SHOWN else "")
    return (
        f"auxiliary.dataset={auxiliary.dataset} holds {len(shared)} of the private classes by name "
        f"({names}), but auxiliary.kind={auxiliary.kind} promises others; set auxiliary.overlap to remove or "
        "allow, or stage it again with --exclude."
    )


def _about(dataset: Dataset | Description) -> Description:
    return dataset.description if isinstance(dataset, Dataset) else dataset


def _pool(about: Description, data: Data) -> int:
    pool = about.num_classes if data.class_pool is None else data.class_pool
    if pool > about.num_classes:
        raise ValueError(
            f"data.class_pool={pool} must lie in 1..{about.num_classes}, the classes of {about.name}; "
            "lower data.class_pool."
        )
    return pool


def _ids(classes: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    return tuple(int(one) for one in classes)
