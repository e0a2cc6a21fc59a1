"""Splits by lists of names: what a line may be, what is left out, and what is refused."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets import Location, load
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.sources import split_lists
from orchestrator.datasets.sources.base import Source, array_source
from orchestrator.datasets.sources.split_lists import UNLISTED, only_listed, read_split, with_lists
from orchestrator.datasets.staging import publish

FILES = ("Ann/1.jpg", "Ann/2.jpg", "Bob/1.jpg", "Bob/7.jpg", "Cy/3.png", "Cy/4.png", "Di/5.png", "Di/6.png")
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)


def people() -> Source:
    source = array_source("npz", IMAGES, np.arange(8) // 2, ("Ann", "Bob", "Cy", "Di"), "0" * 64)
    return dataclasses.replace(source, kind="image-folder", label_of=lambda index: FILES[index])


def lists(folder: Path, *texts: str) -> tuple[str, str, str]:
    """Write the lists of the three parts; "" is an empty part."""
    paths = [folder / f"{name}.txt" if text else "" for name, text in zip("tae", texts, strict=True)]
    for path, text in zip(paths, texts, strict=True):
        if path:
            Path(path).write_text(text, encoding="utf-8")
    return str(paths[0]), str(paths[1]), str(paths[2])


def listed(source: Source, *texts: str, folder: Path) -> Source:
    files = {"own": read_split(lists(folder, *texts))}
    return only_listed(with_lists(source, files)[0], files)


def refusal(folder: Path, *texts: str, source: Source | None = None) -> str:
    """Return the refusal of lists, without the folder."""
    with pytest.raises(ValueError, match=r"^--split-list=") as raised:
        listed(source or people(), *texts, folder=folder)
    return str(raised.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    "name",
    ["Bob/7.jpg", "7.jpg", "7", "Bob/7", "Bob/7.png", "./Bob/7.jpg", "faces/raw/Bob/7.jpg", "Bob\\7.jpg"],
)
@pytest.mark.parametrize("more", ["", "  ", " 3", "\t12"])
def test_a_line_is_a_path_a_file_or_an_id_with_a_label_or_without(
    tmp_path: Path, name: str, more: str
) -> None:
    source, records = with_lists(people(), {"own": read_split(lists(tmp_path, "", "", f"\n{name}{more}\n"))})
    place = [source.label_of(index) for index in range(8)].index("Bob/7.jpg")
    assert source.splits["own"].tolist() == [2 if index == place else UNLISTED for index in range(8)]
    assert records["own"].labels == bool(more.strip())


def test_images_of_arrays_are_named_by_their_place(tmp_path: Path) -> None:
    source = array_source("npz", IMAGES, np.arange(8) // 4, "ab", "0" * 64)
    found = listed(source, "7\n0\n", "", "image 2\n5 1\n".replace(" 1", ""), folder=tmp_path)
    assert [found.label_of(place) for place in range(4)] == ["image 0", "image 2", "image 5", "image 7"]
    assert found.splits["own"].tolist() == [0, 2, 2, 0]


def test_images_and_classes_on_no_list_are_left_out_and_counted(tmp_path: Path) -> None:
    source = listed(people(), "Ann/2.jpg\n", "", "Cy/3.png\nCy/4.png\n", folder=tmp_path)
    files = {"own": read_split(lists(tmp_path, "Ann/2.jpg\n", "", "Cy/3.png\nCy/4.png\n"))}
    options = Options(splits={}, split_lists=with_lists(people(), files)[1])
    blobs = MemoryBlobs("memory")
    manifest, _ = publish(source, options, blobs, "set")
    dataset = load("set", Location(blobs))
    assert manifest.dropped == {"not on a split list": 5}
    assert (manifest.seen, manifest.class_names) == (8, ("Ann", "Cy"))
    assert (manifest.splits["own"].counts, manifest.splits["own"].rule) == ((1, 0, 2), None)
    assert list(manifest.splits) == ["own"]
    assert manifest.options.split_lists["own"].names == (1, 0, 2)
    assert manifest.options.split_lists["own"].sha256[1] is None
    assert np.array_equal(dataset.images[:], IMAGES[[1, 4, 5]])
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.splits["own"].tolist() == [0, 2, 2]


def test_other_lists_make_another_set(tmp_path: Path) -> None:
    blobs = MemoryBlobs("memory")
    for number, text in enumerate(
        ["Ann/1.jpg\nCy/3.png\n", "Ann/1.jpg\nCy/3.png\n", "Cy/3.png\nAnn/1.jpg\n"]
    ):
        files = {"own": read_split(lists(tmp_path, text, "", ""))}
        source, records = with_lists(people(), files)
        options = Options(splits={}, split_lists=records)
        if number == 2:
            with pytest.raises(ValueError, match="already holds another set"):
                publish(only_listed(source, files), options, blobs, "set")
        else:
            assert publish(only_listed(source, files), options, blobs, "set")[1] is (number == 0)


@pytest.mark.parametrize(
    ("labels", "names", "is_numbered"),
    [
        ({"Ann": 2, "Bob": 0, "Di": 1}, ("Bob", "Di", "Ann"), True),
        ({"Ann": 40, "Bob": 10, "Di": 7}, ("Di", "Bob", "Ann"), False),
    ],
)
def test_classes_come_in_the_order_of_their_labels(
    tmp_path: Path, labels: Mapping[str, int], names: tuple[str, ...], is_numbered: bool
) -> None:
    rows = [f"{name} {labels[name.partition('/')[0]]}\n" for name in FILES if not name.startswith("Cy")]
    files = {"own": read_split(lists(tmp_path, "".join(rows[::2]), "", "".join(rows[1::2])))}
    ordered, records = with_lists(people(), files)
    source = only_listed(ordered, files)
    assert source.class_names == names
    assert [names[label] for label in source.labels] == ["Ann", "Ann", "Bob", "Bob", "Di", "Di"]
    assert (records["own"].labels, records["own"].is_numbered) == (3, is_numbered)


def test_labels_of_images_without_classes_are_not_compared(tmp_path: Path) -> None:
    source = listed(people().unlabelled(), "Ann/1.jpg 0\nAnn/2.jpg 1\nDi/5.png 0\n", "", "", folder=tmp_path)
    assert (source.class_names, source.labels.tolist()) == (("unlabelled",), [0, 0, 0])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ("Ann/1.jpg\nEve/1.jpg\n", "", "9.jpg\n"),
            "--split-list=t.txt names 'Eve/1.jpg', which no image has (2 of 3 names of the split); "
            "correct the list, whose lines are FILE or FILE LABEL, or give the SOURCE that it was made for.",
        ),
        (
            ("Ann/1.jpg\n", "1.jpg\n", "7.jpg 3\n"),
            "--split-list=a.txt names '1.jpg', which 2 images have (1 of 3 names of the split); "
            "write each with its folder, as CLASS/FILE.",
        ),
        (
            ("Ann/1.jpg\n7\nBob/7.jpg\n", "", ""),
            "--split-list=t.txt names Bob/7.jpg twice (1 of 3 names are repeated); remove the second.",
        ),
        (
            ("Ann/1.jpg\n7\n", "", "Bob/7.jpg\nAnn/1.jpg\n"),
            "--split-list=t.txt,,e.txt has images in two parts: Bob/7.jpg is in train and in evaluation "
            "(2 images); remove each from all lists but one.",
        ),
        (
            ("Ann/1.jpg 0\nAnn/2.jpg 0\n", "", "Bob/1.jpg 0\nCy/3.png 1\n"),
            "--split-list=t.txt,,e.txt gives label 0 to Ann and to Bob (1 of 2 labels); correct the labels, "
            "which must rename the classes one to one, or remove them from the lists.",
        ),
        (
            ("Ann/1.jpg 0\nAnn/2.jpg 5\nBob/1.jpg 1\n", "", ""),
            "--split-list=t.txt,, gives Ann the labels 0 and 5 (1 of 2 classes); correct the labels, "
            "which must rename the classes one to one, or remove them from the lists.",
        ),
        (
            ("Ann/1.jpg 0\n", "", "Bob/1.jpg\nCy/3.png\n"),
            "--split-list=t.txt,,e.txt has no label for Bob/1.jpg (2 of 3 lines have none); "
            "write FILE LABEL on every line, or on none.",
        ),
        (("\n", "", ""), "--split-list=t.txt,, lists no image; name a file with one image a line."),
    ],
)
def test_refusals_name_the_first_image_and_count(
    tmp_path: Path, texts: tuple[str, str, str], message: str
) -> None:
    assert refusal(tmp_path, *texts) == message


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("binary", "absent"):
        with pytest.raises(
            ValueError, match=rf"--split-list=.*{name} cannot be read as text \(.*; give a UTF-8"
        ):
            read_split((str(tmp_path / name), "", ""))


def test_a_list_that_is_too_long_is_refused_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = lists(tmp_path, "Ann/1.jpg\n", "", "")
    monkeypatch.setattr(split_lists, "MAX_LIST_BYTES", 10)
    assert read_split(paths).lines[0] == ("Ann/1.jpg",)
    monkeypatch.setattr(split_lists, "MAX_LIST_BYTES", 9)
    with pytest.raises(ValueError, match=r"^--split-list=\S+ has more than 9 bytes; give a UTF-8 file"):
        read_split(paths)


def test_several_splits_name_the_same_images_and_order(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = read_split(lists(tmp_path / "one", "Ann/1.jpg 1\n", "", "Bob/1.jpg 0\n"))
    source = with_lists(people(), {"one": one, "two": read_split(lists(tmp_path / "two", "7\n", "", ""))})[0]
    message = "--split-list=one has no part for Bob/7.jpg, which two names (1 images); list the same images"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        only_listed(source, ("one", "two"))
    two = read_split(lists(tmp_path / "two", "Ann/1.jpg 0\n", "", "Bob/1.jpg 1\n"))
    with pytest.raises(ValueError, match=r"^--split-list one and two number the classes differently; stage"):
        with_lists(people(), {"one": one, "two": two})
    two = read_split(lists(tmp_path / "two", "Bob/1.jpg\n", "Ann/1.jpg\n", ""))
    found = only_listed(with_lists(people(), {"one": one, "two": two})[0], ("one", "two"))
    assert found.class_names == ("Bob", "Ann")
    assert {name: codes.tolist() for name, codes in found.splits.items()} == {"one": [0, 2], "two": [1, 0]}
