"""Exclusion: classes left out of a source by name; the manifest records the list by checksum and count.

Names are compared without regard to case, and with spaces, underscores and dashes taken as equal.
"""

import csv
import functools
import io
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.config.base import Refused
from orchestrator.datasets.manifest import Exclusion
from orchestrator.datasets.sources.base import Source
from orchestrator.datasets.sources.files import MAX_LIST_BYTES
from orchestrator.store.blobs import sha256

HEADERS = ("name", "identity")  # last word of a header line, such as `lfw_name`


@dataclass(frozen=True)
class NameList:
    """The folded names in a file, and the file's checksum."""

    names: frozenset[str]
    sha256: str


@functools.cache
def folded(name: str) -> str:
    """Return the form of a class name that is compared: NFKC, case-folded, separators as single spaces."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def read_names(path: Path) -> NameList:
    """Return the names in the first column of a text or csv file; skip blank lines, # comments and a header.

    Raise `Refused` if the file is not UTF-8 text or lists no name.
    """
    try:
        with path.open("rb") as handle:  # not only regular files: shells pass <(...) as a pipe
            data = handle.read(MAX_LIST_BYTES)
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        rule = f"cannot be read as text ({error})"
        raise Refused("--exclude", path, rule, "give a UTF-8 file, one class name a line") from None
    cells = [folded(row[0]) for row in rows if row and row[0].strip() and not row[0].startswith("#")]
    if cells and cells[0].split(" ")[-1] in HEADERS:
        cells = cells[1:]
    if not cells:
        raise Refused("--exclude", path, "lists no class name", "write one a line or drop --exclude")
    return NameList(frozenset(cells), sha256(data))


def without(source: Source, listed: NameList) -> tuple[Source, Exclusion]:
    """Return the source without the listed classes, and the manifest's record of the list."""
    names = [folded(name) for name in source.class_names]
    stays = np.array([name not in listed.names for name in names], dtype=bool)
    kept = np.flatnonzero(stays[source.labels])
    removed = np.flatnonzero(~stays[source.labels])
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
            "excluded class": tuple(source.label_of(int(index)) for index in removed),
        },
    )
    return shorter, record
