"""FaceScrub: reader of the authors' two lists of links and face boxes, and of the images downloaded.

Ng and Winkler, "A data-driven approach to cleaning large face datasets", ICIP 2014: 530 people, 106,863
links, many of them dead. The lists are CC BY-NC-ND 4.0; each image belongs to its owner.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.archives import checked
from orchestrator.datasets.sources.base import BadImage, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import decode
from orchestrator.datasets.sources.files import read_lines
from orchestrator.datasets.sources.folders import image_folder, read_capped
from orchestrator.datasets.sources.layouts import SEXES

LISTS = ("facescrub_actors.txt", "facescrub_actresses.txt")
ROW = re.compile(  # name, image_id, face_id, url (unused), bbox, sha256
    r"(?P<name>[^\t]+)\t(?P<image>\d+)\t(?P<face>\d+)\t[^\t]*"
    r"\t(?P<box>-?\d+,-?\d+,-?\d+,-?\d+)\t(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Face:
    """One row of the lists."""

    name: str
    image: str
    face: str
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels
    sha256: str  # of the image file

    @property
    def label(self) -> str:
        """Return the face's name in messages."""
        return f"{self.name}/{self.image}_{self.face}"


def facescrub(folder: Path) -> Source:
    """Return each face, cropped to its box, (H, W, C) uint8 and not square, from files below the folder.

    A file belongs to a row if its bytes have the row's SHA-256, so placeholders behind dead links do not
    count. Without both lists, faces that were cut out already are read as actors/faces/NAME/FILE and
    actresses/faces/NAME/FILE. Raise `Refused` if a list is missing or damaged, or no file belongs to a row.
    """
    if not any((folder / name).exists() for name in LISTS) and any(map(Path.is_dir, _sexes(folder))):
        return replace(image_folder(folder), kind="facescrub", name="facescrub", stretch=True)
    rows = [face for name in LISTS for face in _rows(folder / name)]
    pictures = _pictures(folder)
    faces = [face for face in rows if face.sha256 in pictures]
    if not faces:
        raise Refused(
            f"{folder}:",
            NO_VALUE,
            f"none of its {len(pictures)} files has a SHA-256 of the {len(rows)} rows in the lists",
            "download the pictures below that folder and keep their bytes as they are, or remove the lists "
            "to read faces from actors/faces/NAME and actresses/faces/NAME",
        )
    names = sorted({face.name for face in faces})
    number = {name: label for label, name in enumerate(names)}
    read = checked(lambda sha256: read_capped(pictures[sha256]), folder)
    return Source(
        kind="facescrub",
        name="facescrub",
        class_names=tuple(names),
        labels=np.array([number[face.name] for face in faces], dtype=np.int64),
        read=lambda index: _cut_out(read(faces[index].sha256), faces[index]),
        label_of=lambda index: faces[index].label,
        fingerprint=fingerprint_of((f"{face.label} {face.box}", face.sha256.encode()) for face in faces),
        left_out={"no such picture on disk": tuple(row.label for row in rows if row.sha256 not in pictures)},
        stretch=True,
    )


def _sexes(folder: Path) -> list[Path]:
    return [folder / sex for sex in sorted(SEXES)]


def _rows(path: Path) -> Iterator[Face]:
    lines = read_lines(path, f"put the lists {' and '.join(LISTS)} there")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("name\t")):
            continue
        match = ROW.fullmatch(line.rstrip())
        if match is None:
            rule = "does not read name, image_id, face_id, url, bbox, sha256 between tabs"
            raise Refused(f"{path} line {number}", NO_VALUE, rule, "take the owners' list as it is")
        left, top, right, bottom = (int(edge) for edge in match["box"].split(","))
        yield Face(match["name"], match["image"], match["face"], (left, top, right, bottom), match["sha256"])


def _pictures(folder: Path) -> dict[str, Path]:
    """Return the files below the folder by the SHA-256 of their bytes."""
    files = sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names)
    by_digest: dict[str, Path] = {}
    for file in files:
        if file.name not in LISTS and file.is_file():
            with file.open("rb") as handle:
                by_digest.setdefault(hashlib.file_digest(handle, "sha256").hexdigest(), file)
    return by_digest


def _cut_out(data: bytes, face: Face) -> np.ndarray:
    """Return the pixels in the box, clipped to the image."""
    picture = decode(data, face.label)
    left, top, right, bottom = (max(edge, 0) for edge in face.box)
    cut = picture[top:bottom, left:right]
    if cut.size == 0:
        height, width = picture.shape[:2]
        rule = f"has the box {','.join(map(str, face.box))}, but its picture is {height}x{width}"
        raise BadImage(face.label, NO_VALUE, rule, "pass --on-bad skip", "box outside the picture")
    return cut
