"""FaceScrub: the owners' two lists of links and face boxes, and whatever was downloaded of them.

Ng and Winkler, "A data-driven approach to cleaning large face datasets", ICIP 2014: 530 people, 106,863
links, many of them dead. The lists are CC BY-NC-ND 4.0; each picture belongs to its owner.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.datasets.sources.base import BadImage, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import decode
from orchestrator.datasets.sources.folders import checked, read_capped

LISTS = ("facescrub_actors.txt", "facescrub_actresses.txt")
ROW = re.compile(  # name, image_id, face_id, url, bbox, sha256; the url is of no use here
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
    sha256: str  # of the picture's file

    @property
    def label(self) -> str:
        """Return what a message calls it."""
        return f"{self.name}/{self.image}_{self.face}"


def facescrub(folder: Path) -> Source:
    """Read the lists and the pictures anywhere below; each face is cut out by its box, which is not square.

    A picture belongs to a row when its bytes have the row's SHA-256, so what replaced a dead link is refused.
    """
    rows = [face for name in LISTS for face in _rows(folder / name)]
    pictures = _pictures(folder)
    faces = [face for face in rows if face.sha256 in pictures]
    if not faces:
        raise ValueError(
            f"{folder}: none of its {len(pictures)} files has a SHA-256 of the {len(rows)} rows in the "
            "lists; download the pictures below that folder and keep their bytes as they are."
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


def _rows(path: Path) -> Iterator[Face]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); put the lists {' and '.join(LISTS)} there."
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("name\t")):
            continue
        match = ROW.fullmatch(line.rstrip())
        if match is None:
            raise ValueError(
                f"{path} line {number} does not read name, image_id, face_id, url, bbox, sha256 between "
                "tabs; take the owners' list as it is."
            )
        left, top, right, bottom = (int(edge) for edge in match["box"].split(","))
        yield Face(match["name"], match["image"], match["face"], (left, top, right, bottom), match["sha256"])


def _pictures(folder: Path) -> dict[str, Path]:
    """Return each file below the folder by the SHA-256 of its bytes."""
    files = sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names)
    found: dict[str, Path] = {}
    for file in files:
        if file.name not in LISTS and file.is_file():
            with file.open("rb") as handle:
                found.setdefault(hashlib.file_digest(handle, "sha256").hexdigest(), file)
    return found


def _cut_out(data: bytes, face: Face) -> np.ndarray:
    """Return the box, clipped to the picture."""
    picture = decode(data, face.label)
    left, top, right, bottom = (max(edge, 0) for edge in face.box)
    cut = picture[top:bottom, left:right]
    if cut.size == 0:
        height, width = picture.shape[:2]
        raise BadImage(
            "box outside the picture",
            f"{face.label} has the box {','.join(map(str, face.box))}, but its picture is {height}x{width}; "
            "pass --on-bad skip.",
        )
    return cut
