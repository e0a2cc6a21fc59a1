"""Layouts that people have, from names alone: classes, published parts, and what is left out."""

import pytest

from orchestrator.datasets.sources.layouts import arrange, arrange_unlabelled, without_wrappers

CASES: dict[str, tuple[list[str], dict[str, str], dict[str, str], list[str]]] = {
    # names, image -> class, image -> part, ignored
    "plain": (["a/1.png", "b/1.png"], {"a/1.png": "a", "b/1.png": "b"}, {}, []),
    "files beside": (["a/1.png", "b/x", "list.csv"], {"a/1.png": "a", "b/x": "b"}, {}, ["list.csv"]),
    "hidden": (
        ["a/1.png", "b/1.png", "a/.DS_Store", "a/Thumbs.db", ".git/a/1.png", "__MACOSX/a/._1.png"],
        {"a/1.png": "a", "b/1.png": "b"},
        {},
        [".git/a/1.png", "__MACOSX/a/._1.png", "a/.DS_Store", "a/Thumbs.db"],
    ),
    "wrapped": (["w/a/1.png", "w/b/1.png", "w/READ.me"], {"a/1.png": "a", "b/1.png": "b"}, {}, ["READ.me"]),
    "parts": (
        ["train/a/1.png", "train/b/1.png", "val/a/1.png", "train/notes.txt"],
        {"train/a/1.png": "a", "train/b/1.png": "b", "val/a/1.png": "a"},
        {"train/a/1.png": "train", "train/b/1.png": "train", "val/a/1.png": "evaluation"},
        ["train/notes.txt"],
    ),
    "three parts, wrapped": (
        ["w/Train/a/1.png", "w/valid/a/1.png", "w/Test/b/1.png"],
        {"Train/a/1.png": "a", "valid/a/1.png": "a", "Test/b/1.png": "b"},
        {"Train/a/1.png": "train", "valid/a/1.png": "evaluation", "Test/b/1.png": "evaluation"},
        [],
    ),
    "classes called train and test": (
        ["train/1.png", "test/1.png"],
        {"train/1.png": "train", "test/1.png": "test"},
        {},
        [],
    ),
    "such classes without suffixes": (
        ["train/1", "test/1"],
        {"train/1": "train", "test/1": "test"},
        {},
        [],
    ),
    "FaceScrub": (
        ["actors/faces/Al/1.jpeg", "actresses/faces/Bo/2.jpeg", "actors/images/Al/1.jpeg"],
        {"actors/faces/Al/1.jpeg": "Al", "actresses/faces/Bo/2.jpeg": "Bo"},
        {},
        ["actors/images/Al/1.jpeg"],
    ),
    "FaceScrub, no faces": (
        ["d/actors/Al/1.jpeg", "d/actresses/Bo/2.jpeg"],
        {"actors/Al/1.jpeg": "Al", "actresses/Bo/2.jpeg": "Bo"},
        {},
        [],
    ),
    "FaceScrub, actors alone": (
        ["actors/faces/Al/1.jpeg", "actors/faces/Cy/1.jpeg"],
        {"Al/1.jpeg": "Al", "Cy/1.jpeg": "Cy"},
        {},
        [],
    ),
    "faces beside images": (
        ["faces/Al/1.jpeg", "faces/Cy/1.jpeg", "images/Al/1.jpeg"],
        {"faces/Al/1.jpeg": "Al", "faces/Cy/1.jpeg": "Cy"},
        {},
        ["images/Al/1.jpeg"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_classes_and_parts_of_a_layout(case: str) -> None:
    names, images, parts, ignored = CASES[case]
    layout = arrange(without_wrappers(names), "set")
    assert layout.images == images
    assert {name: part for name, part in layout.parts.items() if name in images} == parts
    assert list(layout.ignored) == ignored
    assert list(layout.images) == sorted(images)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["a/1.png", "b/c/1.png"],
            "set/b/c/1.png lies too deep, images must be in one directory per identity",
        ),
        (["a/1.png", "a/b/1.png"], "set/a/b/1.png lies too deep"),  # a has images itself: no wrapper
        (["train/1.png", "val/a/1.png"], "set/val/a/1.png lies too deep"),
        (["train/a/1.png", "others/a/1.png"], "lies too deep"),
        (["actors/faces/a/x/1.png", "actresses/faces/b/1.png"], "set/actors/faces/a/x/1.png lies too deep"),
        (["1.png"], "set has no image folders; it needs one directory per identity, or --unlabelled for"),
        ([".a/1.png"], "set has no image folders"),
        ([], "set has no image folders"),
    ],
)
def test_other_layouts_are_refused(names: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        arrange(without_wrappers(names), "set")


def test_without_classes_every_image_by_name_counts() -> None:
    layout = arrange_unlabelled(["b/c/2.JPG", "1.png", "b/.3.png", "notes.txt", "x/4.webp"], "set")
    assert list(layout.images) == ["1.png", "b/c/2.JPG", "x/4.webp"]
    assert set(layout.images.values()) == {"unlabelled"}
    assert list(layout.ignored) == ["b/.3.png", "notes.txt"]
    with pytest.raises(ValueError, match=r"set has no image by name \(\.png, \.jpg, .*\); give the folder"):
        arrange_unlabelled(["a/1.gif"], "set")
