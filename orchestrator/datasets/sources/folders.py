"""Folders: readers of image folders, one directory per identity, and of .zip files of such folders.

Hidden files and files outside the identities' directories are counted as dropped.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.archives import MAX_MEMBERS, Read, checked, open_zip
from orchestrator.datasets.sources.base import BadImage, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import MAX_BYTES, decode
from orchestrator.datasets.sources.files import read_regular
from orchestrator.datasets.sources.layouts import arrange, arrange_unlabelled, is_hidden, without_wrappers
from orchestrator.datasets.splits import PARTS

MAX_DEPTH = 6  # folders below the one given, of which the last is an identity's


def image_folder(path: Path, *, is_labelled: bool = True) -> Source:
    """Return the images DIR/identity/file, (H, W, C) uint8 each, or all in one class if not `is_labelled`.

    Raise `Refused` if the layout is none of those in `layouts`.
    """
    files = {file.relative_to(path).as_posix(): file for file in _walk(path, ())}
    for name in files:
        if name.encode(errors="replace").decode() != name:  # the system's names are bytes
            raise Refused(f"{path}: {name!a}", NO_VALUE, "has a name that is not UTF-8", "rename it")
    name = path.resolve().name
    return _source(path, name, files, lambda name: read_capped(files[name]), is_labelled=is_labelled)


def image_zip(path: Path, *, is_labelled: bool = True) -> Source:
    """Return the images of an archive's members, laid out as a folder is.

    Raise `Refused` if the archive is unreadable, unsafe or of another layout.
    """
    members, read = open_zip(path)
    return _source(path, path.stem, members, read, is_labelled=is_labelled)


def read_capped(path: Path) -> bytes:
    """Return a regular file's first `MAX_BYTES` + 1 bytes; raise `OSError` for a fifo, device or socket."""
    return read_regular(path, MAX_BYTES)


def contents(names: Iterable[str], read: Read) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes for a fingerprint; the bytes of an unreadable file are empty."""
    for name in names:
        try:
            yield name, read(name)
        except BadImage:  # raised again when the image is decoded
            yield name, b""


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the files of a folder and those below it, following links; refuse loops and empty folders.

    `above` are the folders that hold it, by device and inode.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above or len(above) > MAX_DEPTH:
        what = "is a link to a folder that holds it" if here in above else "lies too deep"
        raise Refused(str(folder), NO_VALUE, what, "remove it or give the folder of the identities")
    entries = _entries(folder)
    if above and all(is_hidden(entry.name) for entry in entries):
        raise Refused(str(folder), NO_VALUE, "has no images", "remove that folder")
    for entry in entries:
        if entry.is_dir():
            if not is_hidden(entry.name):
                yield from _walk(entry, (*above, here))
        elif above or entry.is_file():
            yield entry


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise Refused(str(folder), NO_VALUE, f"cannot be listed ({error.strerror})", "allow it") from None
    if len(entries) > MAX_MEMBERS:
        rule = f"has {len(entries)} files, more than {MAX_MEMBERS}"
        raise Refused(str(folder), NO_VALUE, rule, "split it")
    return entries


def _source(path: Path, name: str, files: Iterable[str], read: Read, *, is_labelled: bool) -> Source:
    given = without_wrappers(files) if is_labelled else {file: file for file in files}
    layout = (arrange if is_labelled else arrange_unlabelled)(given, str(path))
    images = list(layout.images)
    classes = sorted(set(layout.images.values()))
    number = {one: label for label, one in enumerate(classes)}
    read_checked = checked(lambda name: read(given[name]), path)
    original = [PARTS.index(layout.parts[image]) for image in images] if layout.parts else []
    return Source(
        kind="image-folder",
        name=name.lower(),
        class_names=tuple(classes),
        labels=np.array([number[layout.images[image]] for image in images], dtype=np.int64),
        read=lambda index: decode(read_checked(images[index]), f"{path}: {images[index]}"),
        label_of=lambda index: images[index],
        fingerprint=fingerprint_of(contents(sorted(given), read_checked)),
        splits={"original": np.array(original, dtype=np.uint8)} if original else {},
        left_out={"outside a class folder" if is_labelled else "no image by name": tuple(layout.ignored)},
    )
