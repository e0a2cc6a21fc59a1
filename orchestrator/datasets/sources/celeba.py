"""CelebA, aligned and cropped: reader of the authors' identity list and images, in a folder or a .zip.

Liu et al., "Deep learning face attributes in the wild", ICCV 2015: 202,599 images of 10,177 people, 178
pixels wide and 218 high, for non-commercial research only. Identities are numbers without names, so people
shared with another data set cannot be found by name.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.archives import Read, checked, leaves, open_zip
from orchestrator.datasets.sources.base import Crop, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import decode
from orchestrator.datasets.sources.files import read_lines
from orchestrator.datasets.sources.folders import contents, read_capped

LIST = "identity_CelebA.txt"
PICTURES = ("img_align_celeba", "img_align_celeba_png")  # the owners' JPEG and PNG copies
SUFFIXES = (".jpg", ".png")  # the list names .jpg, the copies are the same pictures
MAX_DIGITS = 18  # of an identity
CROP: Crop = (35, 70, 108)  # AMI's released code; TL-DMI's crops (35, 55, 108)


def celeba(folder: Path) -> Source:
    """Return CelebA, (218, 178, 3) uint8 each, with one class for each identity that has an image on disk.

    Read `identity_CelebA.txt` from the folder or its Anno, `img_align_celeba`, its copy in PNG or a .zip of
    one from the folder or its Img; the pictures may lie one folder deeper, as Kaggle packs them. Raise
    `Refused` if one is missing or the list is not the authors'.
    """
    people = _people(_find(folder, ("", "Anno", "celeba"), (LIST,)))
    packed = tuple(f"{name}.zip" for name in PICTURES)
    present, read = _open(_find(folder, ("", "Img", "celeba"), PICTURES + packed))
    files = [file for file in people if file in present]
    names = sorted({people[file] for file in files}, key=int)
    number = {name: label for label, name in enumerate(names)}
    listed = "\n".join(f"{file} {people[file]}" for file in files).encode()
    return Source(
        kind="celeba",
        name="celeba",
        class_names=tuple(names),
        labels=np.array([number[people[file]] for file in files], dtype=np.int64),
        read=lambda index: decode(read(files[index]), files[index]),
        label_of=lambda index: files[index],
        fingerprint=fingerprint_of(chain([(LIST, listed)], contents(files, read))),
        left_out={"no such picture on disk": tuple(file for file in people if file not in present)},
        crop=CROP,
    )


def _find(folder: Path, below: tuple[str, ...], names: tuple[str, ...]) -> Path:
    for sub in below:
        for name in names:
            if (folder / sub / name).exists():
                return folder / sub / name
    places = ", ".join(sub or "." for sub in below)
    rule = f"holds no {' or '.join(names)} (looked in {places})"
    raise Refused(str(folder), NO_VALUE, rule, "give the folder of the owners' files")


def _people(path: Path) -> dict[str, str]:
    """Return the identity of each listed image, in the list's order."""
    people: dict[str, str] = {}
    way_out = "take the owners' list as it is"
    for number, line in enumerate(read_lines(path, way_out), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal() or len(words[1]) > MAX_DIGITS:
            raise Refused(f"{path} line {number}", NO_VALUE, "does not read FILE IDENTITY", way_out)
        if leaves(words[0]) or "/" in words[0]:
            rule = f"names {words[0]!a}, which is no plain file name"
            raise Refused(f"{path} line {number}", NO_VALUE, rule, way_out)
        if people.setdefault(words[0], words[1]) != words[1]:
            rule = f"gives {words[0]} the identity {words[1]}, an earlier line {people[words[0]]}"
            raise Refused(f"{path} line {number}", NO_VALUE, rule, way_out)
    return people


def _open(path: Path) -> tuple[set[str], Read]:
    """Return the names that the list may give to images on disk, and a function that reads one by name."""
    if path.is_dir():
        inner = path / path.name
        home = inner if inner.is_dir() else path
        names = {file.name: file.name for file in home.iterdir() if file.is_file()}
        by_list = _by_list(names)
        return set(by_list), checked(lambda name: read_capped(home / by_list[name]), path)
    members, read = open_zip(path)
    by_list = _by_list({_without_folders(name): name for name in members})
    return set(by_list), checked(lambda name: read(by_list[name]), path)


def _by_list(files: Mapping[str, str]) -> dict[str, str]:
    """Add the names in the other format, unless there are files of that name: 1.jpg is read from 1.png."""
    copies = {}
    for name, file in files.items():
        stem, _, suffix = name.rpartition(".")
        if f".{suffix}" in SUFFIXES:
            copies.update({f"{stem}{other}": file for other in SUFFIXES})
    return {**copies, **files}


def _without_folders(name: str) -> str:
    while (parts := name.partition("/"))[0] in PICTURES:
        name = parts[2]
    return name
