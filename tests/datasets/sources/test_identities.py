"""The classes of a set by a list of names: order, record, and refusals."""

import re
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets import Location, load
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.sources.base import Source, array_source
from orchestrator.datasets.sources.exclusion import read_names, without
from orchestrator.datasets.sources.identities import only, read_identities
from orchestrator.datasets.staging import publish

NAMES = ("Ann_Lee", "Bob Ray", "carl", "Dora")
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)


def people(names: tuple[str, ...] = NAMES) -> Source:
    return array_source("npz", IMAGES, np.arange(16) % 4, names, "0" * 64)


def listed(folder: Path, text: str) -> Path:
    (folder / "list.txt").write_text(text, encoding="utf-8")
    return folder / "list.txt"


def test_class_i_is_line_i_and_the_same_list_makes_the_public_set(tmp_path: Path) -> None:
    path = listed(tmp_path, "name\nDORA\nann lee\n")
    source, record = only(people(), read_identities(path))
    blobs = MemoryBlobs("memory")
    manifest, _ = publish(source, Options(identities=record), blobs, "set")
    dataset = load("set", Location(blobs))
    assert dataset.class_names == ("Dora", "Ann_Lee")
    assert dataset.labels.tolist() == [1, 0] * 4
    assert np.array_equal(dataset.images[:], IMAGES[np.isin(np.arange(16) % 4, [0, 3])])
    assert manifest.dropped == {"class not listed": 8}
    assert manifest.options.identities == record
    assert record.names == 2
    others, _ = without(people(), read_names(path))
    assert others.class_names == ("Bob Ray", "carl")


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("carl\ndora\nCARL\n", NAMES, "lists 'carl' twice, 1 of 2 names more than once; write each class on"),
        (
            "carl\nEve\nFay\n",
            NAMES,
            "lists 'eve', which is no class with images (2 of 3 names); correct the list; a class is named "
            "like 'ann lee'.",
        ),
        (
            "carl\n",
            ("Carl", "Bob", "carl", "Dora"),
            "lists 'carl', the name of 2 classes (1 such names); rename the classes in the source.",
        ),
        ("# nobody\n", NAMES, "lists no class name; write one a line or drop --identities."),
    ],
)
def test_lists_that_do_not_name_classes_are_refused(
    tmp_path: Path, text: str, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^--identities(=\S+list\.txt)? {re.escape(message)}"):
        only(people(names), read_identities(listed(tmp_path, text)))
