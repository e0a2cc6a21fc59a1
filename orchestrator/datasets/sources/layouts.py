"""Layouts: which files of a folder or an archive are images, and of which class, by their names alone.

Images are CLASS/FILE. That may lie in folders that hold all classes, below train/ and val/ or test/ (the
published split), or as FaceScrub's downloaders write it, actors/faces/NAME/FILE and
actresses/faces/NAME/FILE.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import UNLABELLED

HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".pgm", ".ppm", ".mpo")
PARTS_OF = {"train": "train", "training": "train"} | dict.fromkeys(
    ("val", "valid", "validation", "test", "testing"), "evaluation"
)
"""Folder above the classes -> part of the split `original`."""

SEXES = {"actors", "actresses"}
FACES, PICTURES = "faces", "images"


@dataclass(frozen=True)
class Layout:
    """Files by their place in the layout, sorted by name."""

    images: Mapping[str, str]  # name -> class
    ignored: Sequence[str]
    parts: Mapping[str, str] = field(default_factory=dict)  # name -> part of the published split


def is_hidden(part: str) -> bool:
    """Return whether a file or folder of this name belongs to the system, not to the set."""
    return part.startswith(".") or part in HIDDEN


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return the names without the folders that hold all classes -> the given names."""
    given = {name: name for name in names}
    while wrapper := _wrapper(given):
        shorter: dict[str, str] = {}
        for name, original in given.items():
            rest = name.removeprefix(f"{wrapper}/")
            shorter[rest if rest not in shorter else name.replace("/", ":")] = original  # two read-me files
        given = shorter
    return given


def arrange(names: Iterable[str], where: str) -> Layout:
    """Return the layout of names without wrappers; raise `Refused` if an image is below no class or too deep.

    `where` is the set's name in messages.
    """
    names = sorted(names)
    places = {name: tuple(name.split("/")) for name in names if not _any_hidden(name)}
    places = {name: place for name, place in places.items() if len(place) > 1}
    parts = {}
    if _are_above_classes(places, set(PARTS_OF), least=2):
        parts = {name: PARTS_OF[place[0].lower()] for name, place in places.items() if len(place) > 2}
        places = _below(places)
    if _are_above_classes(places, SEXES):
        places = _below(places)
    if FACES in _tops(places) and _are_above_classes(places, {FACES, PICTURES}):
        places = _below({name: place for name, place in places.items() if place[0] == FACES})
    for name, place in places.items():
        if len(place) > 2:
            rule = "lies too deep, images must be in one directory per identity"
            raise Refused(f"{where}/{name}", NO_VALUE, rule, "give that folder")
    if not places:
        way_out = "it needs one directory per identity, or --unlabelled for images without classes"
        raise Refused(where, NO_VALUE, "has no image folders", way_out)
    images = {name: place[0] for name, place in places.items()}
    return Layout(images, [name for name in names if name not in images], parts)


def arrange_unlabelled(names: Iterable[str], where: str) -> Layout:
    """Return the layout of images at any depth, all in one class; other files are ignored."""
    names = sorted(names)
    images = {name: UNLABELLED for name in names if _is_image(name) and not _any_hidden(name)}
    if not images:
        rule = f"has no image by name ({', '.join(SUFFIXES)})"
        raise Refused(where, NO_VALUE, rule, "give the folder of the images")
    return Layout(images, [name for name in names if name not in images])


def _wrapper(names: Iterable[str]) -> str | None:
    """Return the folder that all classes lie in, or None."""
    nested = [name.split("/") for name in names if "/" in name and not _any_hidden(name)]
    tops = {parts[0] for parts in nested}
    is_deeper = any(len(parts) > 2 for parts in nested)
    has_images = any(len(parts) == 2 and _is_image(parts[1]) for parts in nested)
    return tops.pop() if len(tops) == 1 and is_deeper and not has_images else None


def _are_above_classes(places: Mapping[str, tuple[str, ...]], folders: set[str], least: int = 1) -> bool:
    """Return whether the topmost folders are `least` or more of these and no others, with classes below."""
    tops = {top.lower() for top in _tops(places)}
    is_deeper = any(len(place) > 2 for place in places.values())
    has_images = any(len(place) == 2 and _is_image(name) for name, place in places.items())
    return len(tops) >= least and tops <= folders and is_deeper and not has_images


def _tops(places: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {place[0] for place in places.values()}


def _below(places: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the places without their topmost folder; files directly in it are beside the classes."""
    return {name: place[1:] for name, place in places.items() if len(place) > 2}


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _any_hidden(name: str) -> bool:
    return any(map(is_hidden, name.split("/")))
