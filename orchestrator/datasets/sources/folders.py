"""Folders: readers of image folders, one directory per identity, and of .zip files of such folders.

Nothing is unpacked to disk, so no name inside an archive becomes a path. Hidden files and files outside the
identities' directories are counted as dropped.
"""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import BadImage, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import MAX_BYTES, decode
from orchestrator.datasets.sources.files import read_regular

MAX_MEMBERS = 2_000_000
HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")

Read = Callable[[str], bytes]


def image_folder(path: Path) -> Source:
    """Return the images DIR/identity/file, (H, W, C) uint8 each; raise `Refused` if the layout is another."""
    files = {file.relative_to(path).as_posix(): file for file in _walk(path)}
    return _source(path, path.resolve().name, sorted(files), lambda name: read_capped(files[name]))


def read_capped(path: Path) -> bytes:
    """Return a regular file's first `MAX_BYTES` + 1 bytes; raise `OSError` for a fifo, device or socket."""
    return read_regular(path, MAX_BYTES)


def image_zip(path: Path) -> Source:
    """Return the images of members identity/file, with or without one folder around them all.

    Raise `Refused` if the archive is unreadable, unsafe or of another layout.
    """
    members, read = open_zip(path)
    root = _root(members)
    names = {name.removeprefix(root): name for name in members}
    return _source(path, path.stem, sorted(names), lambda name: read(names[name]))


def open_zip(path: Path) -> tuple[list[str], Read]:
    """Return the names of an archive's files and a function that reads one.

    Raise `Refused` if a member is a link, encrypted or named by a path outside, or if there are too many.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise Refused(str(path), NO_VALUE, f"is no readable zip file ({error})", "pack it again") from None
    members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    if len(members) > MAX_MEMBERS:
        rule = f"has {len(members)} members, more than {MAX_MEMBERS}"
        raise Refused(str(path), NO_VALUE, rule, "split it")
    for info in members.values():
        _check_member(info, path)

    def read(name: str) -> bytes:
        with archive.open(members[name]) as handle:
            return handle.read(MAX_BYTES + 1)

    return list(members), read


def checked(read: Read, path: Path) -> Read:
    """Return the same function with failures to read raised as `BadImage`."""

    def read_checked(name: str) -> bytes:
        try:
            return read(name)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            rule = f"cannot be read ({error})"
            raise BadImage(f"{path}: {name}", NO_VALUE, rule, "replace it", "unreadable") from None

    return read_checked


def contents(names: Iterable[str], read: Read) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes for a fingerprint; the bytes of an unreadable file are empty."""
    for name in names:
        try:
            yield name, read(name)
        except BadImage:  # raised again when the image is decoded
            yield name, b""


def leaves(name: str) -> bool:
    """Return whether a name from a list or an archive has empty, `.` or `..` parts, or backslashes."""
    return "\\" in name or bool({"", ".", ".."} & set(name.split("/")))


def _walk(path: Path) -> Iterator[Path]:
    """Yield the files of the folder and of its directories, following links; refuse deeper levels."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not _is_hidden(entry.name):
            yield from _files_of(entry)
        elif entry.is_file():
            yield entry


def _files_of(identity: Path) -> Iterator[Path]:
    files = sorted(identity.iterdir())
    if not any(not _is_hidden(file.name) for file in files):
        raise Refused(str(identity), NO_VALUE, "has no images", "remove that folder")
    for file in files:
        if file.is_dir():
            raise _too_deep(str(file))
        yield file


def _source(path: Path, name: str, files: list[str], read: Read) -> Source:
    images = []
    ignored = []
    for file in files:
        parts = PurePosixPath(file).parts
        if len(parts) == 1 or any(_is_hidden(part) for part in parts):
            ignored.append(file)
        elif len(parts) > 2:
            raise _too_deep(f"{path}: {file}")
        else:
            images.append(file)
    classes = sorted({file.split("/")[0] for file in images})
    if not images:
        raise Refused(str(path), NO_VALUE, "has no image folders", "it needs one directory per identity")
    number = {one: label for label, one in enumerate(classes)}
    read_checked = checked(read, path)
    return Source(
        kind="image-folder",
        name=name.lower(),
        class_names=tuple(classes),
        labels=np.array([number[file.split("/")[0]] for file in images], dtype=np.int64),
        read=lambda index: decode(read_checked(images[index]), f"{path}: {images[index]}"),
        label_of=lambda index: images[index],
        fingerprint=fingerprint_of(contents(files, read_checked)),
        left_out={"outside a class folder": tuple(ignored)},
    )


def _check_member(info: zipfile.ZipInfo, path: Path) -> None:
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    climbs = leaves(info.filename)
    if is_link or climbs or info.flag_bits & 1:
        what = (
            "a link"
            if is_link
            else "a path that leaves the archive or goes around in it"
            if climbs
            else "encrypted"
        )
        member = f"{path}: member {info.filename!a}"
        raise Refused(member, NO_VALUE, f"is {what}", "pack plain folders of images")


def _root(members: Iterable[str]) -> str:
    """Return `folder/` if a single folder holds all identities, or an empty string."""
    nested = [parts for name in members if len(parts := name.split("/")) > 1 and not _is_hidden(parts[0])]
    roots = {parts[0] for parts in nested}
    return f"{roots.pop()}/" if len(roots) == 1 and all(len(parts) > 2 for parts in nested) else ""


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in HIDDEN


def _too_deep(name: str) -> Refused:
    rule = "lies too deep, images must be in one directory per identity"
    return Refused(name, NO_VALUE, rule, "give that folder")
