"""Which classes are private and which public: one seeded order of all, of which the target takes the first k.

Draws are nested (k=3 inside k=5), so sweep points can be paired by class. Plans use this too: no torch here.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.datasets.catalog import Dataset, Description
from orchestrator.spec import Auxiliary, Data

PHOTO_PATCHES = "photo-patches"


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
    if auxiliary.kind in ("same-train", "same-heldout"):
        return None
    if auxiliary.kind == "distinct" and auxiliary.dataset is None:
        return PHOTO_PATCHES
    return None if auxiliary.dataset == data.dataset else auxiliary.dataset


def check_data(about: Description, data: Data, k: int) -> None:
    """Raise if the set cannot give k private classes or lacks the split; reads no images."""
    private_classes(about, data, k)
    if data.split not in about.splits:
        raise ValueError(
            f"data.split={data.split} is not a split of {about.name}; it has {', '.join(about.splits)}."
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
