"""Exclusion: classes left out of a source by name; the manifest records the list by checksum and count.

Names are compared without regard to case, and with spaces, underscores and dashes taken as equal.
"""

import csv
import functools
import io
import re
import unicodedata
from dataclasses import dataclass
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
    """The folded names in a file, in its order and each as often as there, and the file's checksum."""

    names: tuple[str, ...]
    sha256: str


@functools.cache
def folded(name: str) -> str:
    """Return the form of a class name that is compared: NFKC, case-folded, separators as single spaces."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def read_names(path: Path, option: str = "--exclude") -> NameList:
    """Return the names in the first column of a text or csv file; skip blank lines, # comments and a header.

    Raise `Refused` of the option if the file is not UTF-8 text or lists no name.
    """
    try:
        with path.open("rb") as handle:  # not only regular files: shells pass <(...) as a pipe
            data = handle.read(MAX_LIST_BYTES)
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        rule = f"cannot be read as text ({error})"
        raise Refused(option, path, rule, "give a UTF-8 file, one class name a line") from None
    cells = [folded(row[0]) for row in rows if row and row[0].strip() and not row[0].startswith("#")]
    if cells and cells[0].split(" ")[-1] in HEADERS:
        cells = cells[1:]
    if not cells:
        raise Refused(option, path, "lists no class name", f"write one a line or drop {option}")
    return NameList(tuple(cells), sha256(data))


def without(source: Source, listed: NameList) -> tuple[Source, Exclusion]:
    """Return the source without the listed classes, and the manifest's record of the list."""
    names, left_out = [folded(name) for name in source.class_names], set(listed.names)
    stays = np.array([name not in left_out for name in names], dtype=bool)
    kept = np.flatnonzero(stays[source.labels])
    record = Exclusion(sha256=listed.sha256, names=len(left_out), found=len(left_out.intersection(names)))
    return source.restricted(kept, np.flatnonzero(stays).tolist(), "excluded class"), record
