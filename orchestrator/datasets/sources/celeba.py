"""CelebA, aligned and cropped: reader of the authors' identity list and images, in a folder or a .zip.

Liu et al., "Deep learning face attributes in the wild", ICCV 2015: 202,599 images of 10,177 people, 178
pixels wide and 218 high, for non-commercial research only. Identities are numbers without names, so people
shared with another data set cannot be found by name.
"""

from itertools import chain
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import Crop, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import decode
from orchestrator.datasets.sources.folders import Read, checked, contents, leaves, open_zip, read_capped

LIST = "identity_CelebA.txt"
PICTURES = "img_align_celeba"
CROP: Crop = (35, 70, 108)  # AMI's released code; TL-DMI's crops (35, 55, 108)


def celeba(folder: Path) -> Source:
    """Return CelebA, (218, 178, 3) uint8 each, with one class for each identity that has an image on disk.

    Read `identity_CelebA.txt` from the folder or its Anno, `img_align_celeba` or its .zip from the folder or
    its Img. Raise `Refused` if one is missing or the list is not the authors'.
    """
    people = _people(_find(folder, ("", "Anno"), (LIST,)))
    present, read = _open(_find(folder, ("", "Img"), (PICTURES, f"{PICTURES}.zip")))
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
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal():
            raise Refused(f"{path} line {number}", NO_VALUE, "does not read FILE IDENTITY", way_out)
        if leaves(words[0]) or "/" in words[0]:
            rule = f"names {words[0]!a}, which is no plain file name"
            raise Refused(f"{path} line {number}", NO_VALUE, rule, way_out)
        people[words[0]] = words[1]
    return people


def _open(path: Path) -> tuple[set[str], Read]:
    """Return the names of the images on disk and a function that reads one."""
    if path.is_dir():
        return {file.name for file in path.iterdir() if file.is_file()}, checked(
            lambda name: read_capped(path / name), path
        )
    members, read = open_zip(path)
    member = {name.removeprefix(f"{PICTURES}/"): name for name in members}
    return set(member), checked(lambda name: read(member[name]), path)
