"""Leave named classes out of a source, from a list that the manifest records by checksum and count.

Names are compared as people read them: case, spaces, underscores and dashes do not tell two of them apart.
"""

import csv
import functools
import io
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.datasets.manifest import Exclusion, sha256
from orchestrator.datasets.sources.base import Source

HEADERS = ("name", "identity")  # last word of a first line that is no name, such as `lfw_name`


@dataclass(frozen=True)
class NameList:
    """The names of a file, folded, and the file's checksum."""

    names: frozenset[str]
    sha256: str


@functools.cache
def folded(name: str) -> str:
    """Return what is compared of a class name."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def read_names(path: Path) -> NameList:
    """Read the first column of a text or csv file; blank lines, # comments and a header are no names."""
    try:
        data = path.read_bytes()
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"--exclude={path} cannot be read as text ({error}); give a UTF-8 file, one class name a line."
        ) from None
    cells = [folded(row[0]) for row in rows if row and row[0].strip() and not row[0].startswith("#")]
    if cells and cells[0].split(" ")[-1] in HEADERS:
        cells = cells[1:]
    if not cells:
        raise ValueError(f"--exclude={path} lists no class name; write one a line or drop --exclude.")
    return NameList(frozenset(cells), sha256(data))


def without(source: Source, listed: NameList) -> tuple[Source, Exclusion]:
    """Return the source without the listed classes, and what the manifest records of the list."""
    names = [folded(name) for name in source.class_names]
    stays = np.array([name not in listed.names for name in names], dtype=bool)
    kept = np.flatnonzero(stays[source.labels])
    gone = np.flatnonzero(~stays[source.labels])
    record = Exclusion(
        sha256=listed.sha256, names=len(listed.names), found=len(listed.names.intersection(names))
    )
    shorter = replace(
        source,
        class_names=tuple(name for name, stay in zip(source.class_names, stays, strict=True) if stay),
        labels=(np.cumsum(stays) - 1)[source.labels[kept]].astype(np.int64),
        read=lambda index: source.read(int(kept[index])),
        label_of=lambda index: source.label_of(int(kept[index])),
        splits={split: codes[kept] for split, codes in source.splits.items()},
        left_out={
            **source.left_out,
            "excluded class": tuple(source.label_of(int(index)) for index in gone),
        },
    )
    return shorter, record
