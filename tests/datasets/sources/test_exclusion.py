"""Lists of classes to leave out: reading them, and their record in the manifest."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets import Location, load
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.manifest import Options, SplitRule
from orchestrator.datasets.sources.base import Source, array_source
from orchestrator.datasets.sources.exclusion import folded, read_names, without
from orchestrator.datasets.staging import publish

NAMES = ("Ann_Lee", "Bob Ray", "carl", "Dora")
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)


def people() -> Source:
    codes = np.arange(16, dtype=np.uint8) % 3
    return array_source("npz", IMAGES, np.arange(16) % 4, NAMES, "0" * 64, {"original": codes})


def listed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["Ann_Lee", "ann lee", "ANN-LEE", " Ann  Lee ", "Ann_-Lee"])
def test_names_are_compared_as_people_read_them(name: str) -> None:
    assert folded(name) == "ann lee"


def test_composed_and_decomposed_accents_are_one_name() -> None:
    assert folded("Ren\u00e9e") == folded("Rene\u0301e") != folded("Renee")


@pytest.mark.parametrize(
    "text",
    [
        "Ann_Lee\nBob_Ray\n",
        "name\nAnn_Lee\nBob_Ray",
        "\ufeffIdentity,number\r\nAnn Lee,1\r\nbob ray,2\r\n",
        "lfw_name,cfp_number\nAnn_Lee,006\n\n# spelt otherwise\nBob_Ray,007\nBob-Ray,008\n",
        '"Ann Lee","a, b"\n  Bob Ray\n',
    ],
)
def test_the_first_column_of_text_and_csv(tmp_path: Path, text: str) -> None:
    path = listed(tmp_path, text)
    names = read_names(path)
    assert set(names.names) == {"ann lee", "bob ray"}
    assert names.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lists_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for text in ("", "name\n", "# nobody\n\n"):
        with pytest.raises(ValueError, match=r"--exclude=.*list\.csv lists no class name; write one a line"):
            read_names(listed(tmp_path, text))
    with pytest.raises(ValueError, match=r"--exclude=.*absent cannot be read as text .*; give a UTF-8 file"):
        read_names(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"--exclude=.*binary cannot be read as text"):
        read_names(tmp_path / "binary")


def test_the_other_classes_stay_as_they_are(tmp_path: Path) -> None:
    names = read_names(listed(tmp_path, "ann lee\nCARL\nNobody\n"))
    source, record = without(people(), names)
    assert (record.sha256, record.names, record.found) == (names.sha256, 3, 2)
    options = Options(splits={"all": SplitRule(fractions=(1.0, 0.0, 0.0))}, exclude=record)
    blobs = MemoryBlobs("memory")
    manifest, _ = publish(source, options, blobs, "set")
    dataset = load("set", Location(blobs))
    stays = np.arange(16) % 2 == 1
    assert dataset.class_names == ("Bob Ray", "Dora")
    assert np.array_equal(dataset.images[:], IMAGES[stays])
    assert dataset.labels.tolist() == [0, 1] * 4
    assert dataset.splits["original"].tolist() == (np.arange(16) % 3)[stays].tolist()
    assert manifest.dropped == {"excluded class": 8}
    assert manifest.dropped_names[:3] == ("image 0", "image 2", "image 4")
    assert (manifest.seen, manifest.kept, manifest.options.exclude) == (16, 8, record)


def test_another_list_makes_another_set(tmp_path: Path) -> None:
    blobs = MemoryBlobs("memory")
    for number, text in enumerate(["carl\n", "carl\n", "carl\nNobody\n"]):
        source, record = without(people(), read_names(listed(tmp_path, text)))
        options = Options(exclude=record)
        if number == 2:
            with pytest.raises(ValueError, match="already holds another set"):
                publish(source, options, blobs, "set")
        else:
            assert publish(source, options, blobs, "set")[1] is (number == 0)


def test_a_list_of_everybody_leaves_nothing(tmp_path: Path) -> None:
    source, record = without(people(), read_names(listed(tmp_path, "\n".join(NAMES))))
    with pytest.raises(ValueError, match=r"has no images; check the source, --exclude, --min-images"):
        publish(source, Options(exclude=record), MemoryBlobs("memory"), "set")
