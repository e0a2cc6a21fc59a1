"""CelebA, aligned and cropped: the owners' list of identities and their pictures, in a folder or packed.

Liu et al., "Deep learning face attributes in the wild", ICCV 2015: 202,599 pictures of 10,177 people, 178
pixels wide and 218 high, for non-commercial research only. Identities are numbers: the owners give no names,
so people shared with another set cannot be found by name.
"""

from itertools import chain
from pathlib import Path

import numpy as np

from orchestrator.datasets.sources.base import Crop, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import decode
from orchestrator.datasets.sources.folders import Read, checked, contents, leaves, open_zip, read_capped

LIST = "identity_CelebA.txt"
PICTURES = "img_align_celeba"
CROP: Crop = (35, 70, 108)  # AMI; TL-DMI's release cuts (35, 55, 108)


def celeba(folder: Path) -> Source:
    """Read `identity_CelebA.txt` and `img_align_celeba` or its .zip, in the folder or its Anno and Img."""
    people = _people(_find(folder, ("", "Anno"), (LIST,)))
    there, read = _open(_find(folder, ("", "Img"), (PICTURES, f"{PICTURES}.zip")))
    files = [file for file in people if file in there]
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
        left_out={"no such picture on disk": tuple(file for file in people if file not in there)},
        crop=CROP,
    )


def _find(folder: Path, below: tuple[str, ...], names: tuple[str, ...]) -> Path:
    for sub in below:
        for name in names:
            if (folder / sub / name).exists():
                return folder / sub / name
    places = ", ".join(sub or "." for sub in below)
    raise ValueError(
        f"{folder} holds no {' or '.join(names)} (looked in {places}); give the folder of the owners' files."
    )


def _people(path: Path) -> dict[str, str]:
    """Return the identity of each listed picture, in the list's order."""
    people: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal():
            raise ValueError(
                f"{path} line {number} does not read FILE IDENTITY; take the owners' list as it is."
            )
        if leaves(words[0]) or "/" in words[0]:
            raise ValueError(
                f"{path} line {number} names {words[0]!a}, which is no plain file name; take the owners' "
                "list as it is."
            )
        people[words[0]] = words[1]
    return people


def _open(path: Path) -> tuple[set[str], Read]:
    """Return the names of the pictures that are there and how to read one."""
    if path.is_dir():
        return {file.name for file in path.iterdir() if file.is_file()}, checked(
            lambda name: read_capped(path / name), path
        )
    members, read = open_zip(path)
    member = {name.removeprefix(f"{PICTURES}/"): name for name in members}
    return set(member), checked(lambda name: read(member[name]), path)
